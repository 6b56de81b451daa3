"""Sizes, durations and texts, as docker shows them.

`wherry.words` reads what this writes, and `wherry.times` has moments. A duration is
nanoseconds, an int.
"""

from __future__ import annotations

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

# Sizes

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def human_size(size: float, precision: int = 4) -> str:
    """`size` in decimal units, "1.093MB"; tables of images and containers show 3 digits."""
    return _scaled(size, 1000, _DECIMAL, precision)


def binary_size(size: float, precision: int = 4) -> str:
    """`size` in binary units, "1.5GiB", as for memory."""
    return _scaled(size, 1024, _BINARY, precision)


def _scaled(size: float, base: int, units: tuple[str, ...], precision: int) -> str:
    unit = 0
    # What rounds up to the next unit is shown in it: 999999 is 1MB and not 1e+03kB.
    while unit < len(units) - 1 and (size >= base or float(f"{size:.{precision}g}") >= base):
        size /= base
        unit += 1
    digits = f"{size:.{precision}g}"
    return f"{float(digits):g}{units[unit]}" if "e" in digits else digits + units[unit]


# Durations

# Below how many hours which unit is used, and its hours: each until there are two of the next.
_LONG = (
    (2 * 24, 1, "hours"),
    (14 * 24, 24, "days"),
    (60 * 24, 7 * 24, "weeks"),
    (2 * 365 * 24, 30 * 24, "months"),
)


def human_duration(duration: int) -> str:
    """About how long `duration` is: "5 seconds", "About an hour", "3 weeks"."""
    seconds = int(duration / SECOND)
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(duration / HOUR + 0.5)
    if hours == 1:
        return "About an hour"
    for limit, hours_each, unit in _LONG:
        if hours < limit:
            return f"{hours // hours_each} {unit}"
    return f"{int(duration / HOUR) // (365 * 24)} years"


def format_duration(duration: int) -> str:
    """`duration` as Go writes it: "1h30m0s", "1.5s", "100ms"."""
    sign, rest = ("-", -duration) if duration < 0 else ("", duration)
    if rest < SECOND:
        for size, unit in ((1_000_000, "ms"), (1_000, "µs"), (1, "ns")):
            if rest >= size:
                return f"{sign}{_fraction(rest, size)}{unit}"
        return "0s"
    hours, rest = divmod(rest, HOUR)
    minutes, rest = divmod(rest, MINUTE)
    text = f"{sign}{hours}h" if hours else sign
    if hours or minutes:
        text += f"{minutes}m"
    return f"{text}{_fraction(rest, SECOND)}s"


def _fraction(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = str(unit + rest)[1:].rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


# Texts

_ESCAPES = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\\": r"\\",
}


def ellipsis(text: str, width: int) -> str:
    """`text` in at most `width` letters; what is cut off is shown by "…"."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def quote(text: str, mark: str = '"', *, ascii_only: bool = False) -> str:
    """`text` as a Go constant."""
    return mark + "".join(_escape(character, mark, ascii_only) for character in text) + mark


def _escape(character: str, mark: str, ascii_only: bool) -> str:
    if character == mark:
        return f"\\{mark}"
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable() and (character.isascii() or not ascii_only):
        return character
    point = ord(character)
    if point < 0x80:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
