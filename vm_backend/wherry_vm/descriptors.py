"""How much the supervisor may have open: each command, and each file that a container has open
on a share, is one descriptor or more of it."""

from __future__ import annotations

import sys

_WANTED = 10240
"""What macOS gives at most. It starts programs with 256."""


def allow_many() -> None:
    """Take as many as the system lets this user have. Windows has no such limit."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
