"""Times as docker writes them."""

from __future__ import annotations

import time


def rfc3339(nanoseconds: int) -> str:
    """A time since the epoch as UTC with nanoseconds, in RFC 3339."""
    second, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{fraction:09d}Z"


def now() -> str:
    """This moment."""
    return rfc3339(time.time_ns())
