"""The version of the kernel that runs this program, for what no call of it tells."""

from __future__ import annotations

import os
import sys


def kernel_version() -> tuple[int, int]:
    """The first two numbers of it; (0, 0) on Windows."""
    if sys.platform == "win32":
        return 0, 0
    major, _, rest = os.uname().release.partition(".")
    minor = rest.partition(".")[0]
    return int(major), int(minor) if minor.isdigit() else 0
