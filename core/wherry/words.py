"""Small things that docker's options are written in: sizes, durations, booleans, lists.

Each function raises ValueError with docker's reason where it has one.
"""

from __future__ import annotations

from wherry.lean import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}

_UNITS = "bkmgtp"

# Nanoseconds.
_DURATIONS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def read_bool(text: str) -> bool:
    """A boolean as Go reads it."""
    if text not in _BOOLEANS:
        raise ValueError("must be true or false")
    return _BOOLEANS[text]


def natural_order(text: str) -> list[tuple[int, str]]:
    """A key to sort by that has numbers in their order: net2 before net10."""
    parts: list[str] = []
    for character in text:
        if parts and parts[-1][-1].isdecimal() == character.isdecimal():
            parts[-1] += character
        else:
            parts.append(character)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def read_integer(text: str) -> int:
    """A whole number as docker reads one: decimal, or with 0x, 0o, 0b. Raises ValueError."""
    try:
        return int(text, 0)
    except ValueError:
        digits = text.lstrip("+-")
        if digits.isdigit() and digits.isascii():
            return int(text)  # 007: not Python's, but a number to everybody else
    raise ValueError(f"must be a whole number: {text!r}")


def read_natural(text: str) -> int:
    """The number that ASCII digits are, or -1: others may have written more than a number has.

    Python takes digits of every script for digits, and refuses to read thousands of them.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1


def read_bytes(text: str) -> int:
    """A size in bytes: `64m`, `1.5GiB`, `512` (go-units' RAMInBytes: units of 1024)."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    if not number or number[-1:] not in "0123456789.":
        raise ValueError(f"invalid size: '{text}'")
    try:
        amount = float(number)
    except ValueError:
        raise ValueError(f"invalid size: '{text}'") from None
    if amount < 0 or amount != amount or amount == float("inf"):
        raise ValueError(f"invalid size: '{text}'")
    suffix = text[len(number) :].strip(" ").lower()
    unit = suffix[:1]
    if suffix and (unit not in _UNITS or suffix[1:] not in ("", "b", "ib") or suffix[:2] == "bb"):
        raise ValueError(f"invalid suffix: '{suffix}'")
    return int(amount * (1024 ** _UNITS.index(unit) if unit else 1))


def read_duration(text: str) -> int:
    """A duration in nanoseconds: `1h30m`, `1.5s`, `250ms`, `0`."""
    rest = text.removeprefix("-").removeprefix("+")
    if rest == "0":
        return 0
    total = 0
    if not rest:
        raise ValueError(f"invalid duration: {text!r}")
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("nuµμmsh"))]
        # "1m30s" has its units apart by digits, "1ms" is one unit.
        if not number.strip(".") or number.count(".") > 1 or unit not in _DURATIONS:
            missing = "missing unit in duration" if number.strip(".") and not unit else ""
            raise ValueError(f"{missing or 'invalid duration'}: {text!r}")
        rest = rest[len(unit) :]
        whole, _, fraction = number.partition(".")
        total += int(whole or "0") * _DURATIONS[unit]
        total += int(fraction or "0") * _DURATIONS[unit] // 10 ** len(fraction)
    return -total if text.startswith("-") else total


def write_duration(nanoseconds: int) -> str:
    """A text that `read_duration` reads back."""
    return f"{nanoseconds}ns" if nanoseconds else "0"


def split_csv(text: str) -> list[str]:
    """The fields of one line of comma-separated values; quotes as in RFC 4180."""
    fields: list[str] = []
    rest = text
    while True:
        if rest.startswith('"'):
            field, rest = _quoted(rest[1:], text)
        else:
            field, comma, after = rest.partition(",")
            rest = comma + after
        fields.append(field)
        if not rest:
            return fields
        if rest[0] != ",":
            raise ValueError(f'extraneous or missing " in quoted-field: {text}')
        rest = rest[1:]


def join_csv(fields: Iterable[str]) -> str:
    """The line that `split_csv` makes these fields of."""
    quoted = (field.replace('"', '""') for field in fields)
    return ",".join(f'"{field}"' if set(field) & set(',"') else field for field in quoted)


def _quoted(rest: str, text: str) -> tuple[str, str]:
    """A field after its opening quote, and what follows the closing one."""
    field = ""
    while True:
        part, quote, rest = rest.partition('"')
        field += part
        if not quote:
            raise ValueError(f'extraneous or missing " in quoted-field: {text}')
        if not rest.startswith('"'):
            return field, rest
        field += '"'
        rest = rest[1:]


def is_ip(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address, without a zone."""
    for family in (sockets.AF_INET, sockets.AF_INET6):
        try:
            sockets.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False
