"""Debian version numbers: `[epoch:]upstream[-revision]`, ordered as Debian policy 5.6.12 says."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

Operator = Literal["<<", "<=", "=", ">=", ">>"]

# A part is cut into pairs of non-digits and digits, each of which may be empty.
_PAIR = re.compile(r"([^0-9]*)([0-9]*)")

_Number = tuple[int, str]
_Part = tuple[tuple[tuple[int, ...], _Number], ...]
VersionKey = tuple[_Number, _Part, _Part]


@lru_cache(maxsize=65536)
def version_key(version: str) -> VersionKey:
    """What sorts `version` among others."""
    epoch, colon, rest = version.strip().partition(":")
    if not colon:
        epoch, rest = "", epoch
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return _number(epoch), _part(upstream), _part(revision)


def satisfies(version: str, operator: Operator, bound: str) -> bool:
    """Whether `version` stands in this relation to `bound`."""
    ours, theirs = version_key(version), version_key(bound)
    match operator:
        case "<<":
            return ours < theirs
        case "<=":
            return ours <= theirs
        case "=":
            return ours == theirs
        case ">=":
            return ours >= theirs
        case ">>":
            return ours > theirs


_END = ((0,), (0, ""))


def _part(text: str) -> _Part:
    # A missing part counts as 0.
    pairs = [
        ((*map(_weight, letters), 0), _number(digits))
        for letters, digits in _PAIR.findall(text or "0")
        if letters or digits
    ]
    # What ends sorts after "~", and before all else.
    return (*pairs, _END)


def _weight(character: str) -> int:
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256


def _number(digits: str) -> _Number:
    """Digits as a key that orders them by value, however many there are."""
    significant = digits.lstrip("0")
    return len(significant), significant
