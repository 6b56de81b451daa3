"""Moments, as docker's users read and write them: RFC 3339, dates, seconds, "10m" ago.

A moment is nanoseconds since the epoch, an int. On the path of every command, hence
neither `datetime` nor `re`.
"""

from __future__ import annotations

import time

from wherry.errors import UsageError
from wherry.human import SECOND, human_duration
from wherry.timestamps import rfc3339
from wherry.words import read_duration

# What docker's documents say of a thing that has not happened.
NEVER = "0001-01-01T00:00:00Z"

_DAYS_BEFORE_1970 = 719_162
_MONTH_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def format_time(moment: int, *, fixed: bool = False) -> str:
    """`moment` in UTC as RFC 3339 with nanoseconds, "2024-05-01T10:20:30.5Z".

    `fixed` keeps all nine digits, so that lines of a log stay aligned.
    """
    text = rfc3339(moment)
    return text if fixed else text[:-1].rstrip("0").rstrip(".") + "Z"


def format_local_time(moment: int) -> str:
    """`moment` in local time as tables show it, "2024-05-01 12:20:30 +0200 CEST"."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(moment // SECOND))


def format_go_time(text: str) -> str:
    """A time of one of docker's documents (RFC 3339, UTC) as Go prints it."""
    date, _, clock = text.removesuffix("Z").partition("T")
    seconds, _, fraction = clock.partition(".")
    fraction = fraction.rstrip("0")
    return f"{date} {seconds}{'.' if fraction else ''}{fraction} +0000 UTC"


def ago(moment: int, now: int | None = None) -> str:
    """How long ago `moment` was, "2 hours ago"; "N/A" where it never was."""
    if moment <= 0:
        return "N/A"
    return f"{human_duration((time.time_ns() if now is None else now) - moment)} ago"


def parse_time(text: str) -> int:
    """The moment that an RFC 3339 time means; it has seconds and a zone. Raises UsageError."""
    moment = _read_time(text) if len(text) >= len(NEVER) else None
    if moment is None or (text[-1] not in "Zz" and text[-6] not in "+-"):
        raise UsageError(f"invalid time: {text!r}", hint="a time is like 2024-05-01T10:20:30Z")
    return moment


def parse_timestamp(text: str, now: int | None = None) -> int:
    """What `--since` and `--until` take: a time or date, seconds since 1970, or how long ago.

    What has no zone is local. Raises UsageError.
    """
    for moment in (_read_seconds(text), _read_time(text)):
        if moment is not None:
            return moment
    try:
        return (time.time_ns() if now is None else now) - read_duration(text)
    except ValueError:
        raise UsageError(
            f"failed to parse value as time or duration: {text!r}",
            hint="it can be 10m, 2024-05-01, 2024-05-01T10:20:30Z, or seconds since 1970",
        ) from None


def _read_seconds(text: str) -> int | None:
    """Seconds since 1970, perhaps with a fraction."""
    whole, point, fraction = text.partition(".")
    if _digits(whole, len(whole)) < 0 or (point and _digits(fraction, len(fraction)) < 0):
        return None
    return int(whole) * SECOND + _nanoseconds(fraction)


def _read_time(text: str) -> int | None:
    """A date, perhaps with a time, perhaps with a zone."""
    clock_text, zone = _split_zone(text[10:])
    date, clock, offset = _read_date(text[:10]), _read_clock(clock_text), _read_offset(zone)
    if date is None or clock is None or offset is None:
        return None
    hour, minute, second, nanoseconds = clock
    if zone:
        seconds = _days(*date) * 86400 + hour * 3600 + minute * 60 + second - offset
        return seconds * SECOND + nanoseconds
    try:
        return int(time.mktime((*date, hour, minute, second, 0, 0, -1))) * SECOND + nanoseconds
    except (OverflowError, ValueError):
        return None


def _split_zone(text: str) -> tuple[str, str]:
    for position, character in enumerate(text):
        if character in "Zz+-":
            return text[:position], text[position:]
    return text, ""


def _read_date(text: str) -> tuple[int, int, int] | None:
    if len(text) != 10 or text[4] != "-" or text[7] != "-":
        return None
    year, month, day = _digits(text[:4], 4), _digits(text[5:7], 2), _digits(text[8:], 2)
    if year < 1 or not 1 <= month <= 12 or not 1 <= day <= _month_length(year, month):
        return None
    return year, month, day


def _read_clock(text: str) -> tuple[int, int, int, int] | None:
    """`Thh[:mm[:ss[.fraction]]]`; nothing is midnight."""
    if not text:
        return 0, 0, 0, 0
    whole, point, fraction = text[1:].partition(".")
    numbers = [_digits(part, 2) for part in whole.split(":")]
    if text[0] not in "Tt" or len(numbers) > 3 or (point and len(numbers) < 3):
        return None
    if point and _digits(fraction, len(fraction)) < 0:
        return None
    hour, minute, second = numbers + [0] * (3 - len(numbers))
    if not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 60):
        return None
    return hour, minute, second, _nanoseconds(fraction)


def _read_offset(text: str) -> int | None:
    """The seconds that a zone is ahead of UTC; 0 for none."""
    if text in ("", "Z", "z"):
        return 0
    hours, minutes = _digits(text[1:3], 2), _digits(text[4:], 2)
    if hours < 0 or minutes < 0 or text[3] != ":":
        return None
    offset = hours * 3600 + minutes * 60
    return -offset if text[0] == "-" else offset


def _nanoseconds(fraction: str) -> int:
    return int(fraction[:9].ljust(9, "0"))


def _digits(text: str, length: int) -> int:
    """The number that exactly `length` digits make; -1 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) == length else -1


def _days(year: int, month: int, day: int) -> int:
    """The days from 1970-01-01 to a date of the Gregorian calendar."""
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 - _DAYS_BEFORE_1970
    return days + sum(_month_length(year, earlier) for earlier in range(1, month)) + day - 1


def _month_length(year: int, month: int) -> int:
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return _MONTH_LENGTHS[month - 1] + (month == 2 and is_leap)
