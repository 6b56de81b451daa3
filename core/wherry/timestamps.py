"""Times as docker writes them."""

from __future__ import annotations

import time


def rfc3339(nanoseconds: int) -> str:
    """A time since the epoch as UTC with nanoseconds, in RFC 3339."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    year, month, day, hour, minute, second = time.gmtime(seconds)[:6]
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}.{fraction:09d}Z"


def now() -> str:
    """This moment."""
    return rfc3339(time.time_ns())
