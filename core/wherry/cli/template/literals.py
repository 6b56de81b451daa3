"""Go's constants: numbers, characters, strings."""

from __future__ import annotations

import re

from wherry.human import quote

_ESCAPE = re.compile(
    r"\\(?:x(?P<byte>[0-9a-fA-F]{2})|u(?P<short>[0-9a-fA-F]{4})|U(?P<long>[0-9a-fA-F]{8})"
    r"|(?P<octal>[0-7]{3})|(?P<plain>.)|$)",
    re.DOTALL,
)
_PLAIN = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
}
_OCTAL = re.compile(r"[+-]?0[0-7_]+")
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|0[0-7_]*|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[+-]?(?=.*[.eE])(?:[0-9_]+\.?[0-9_]*|\.[0-9_]+)(?:[eE][+-]?[0-9_]+)?")
_INT64 = range(-(2**63), 2**63)


def unquote(text: str) -> str:
    """The string that a Go string or character constant means. Raises ValueError."""
    if text[0] == "`":
        return text[1:-1].replace("\r", "")
    quote = text[0]
    content = text[1:-1]
    # Bytes, since \xff and \377 are bytes of a string in Go and not characters.
    pieces: list[bytes] = []
    position = 0
    for escape in _ESCAPE.finditer(content):
        pieces.append(content[position : escape.start()].encode())
        pieces.append(_unescape(escape, quote))
        position = escape.end()
    pieces.append(content[position:].encode())
    return b"".join(pieces).decode(errors="replace")


def _unescape(escape: re.Match[str], quote: str) -> bytes:
    if escape["byte"]:
        return bytes([int(escape["byte"], 16)])
    if escape["octal"]:
        return bytes([int(escape["octal"], 8) & 0xFF])
    if point := escape["short"] or escape["long"]:
        return chr(int(point, 16)).encode()
    plain = escape["plain"]
    if plain not in _PLAIN or plain == {'"': "'", "'": '"'}[quote]:
        raise ValueError(f"invalid escape {escape[0]}")
    return _PLAIN[plain].encode()


def character(text: str) -> int:
    """The code point that `'x'` means. Raises ValueError."""
    content = unquote(text)
    if len(content) != 1:
        raise ValueError(f"malformed character constant: {text}")
    return ord(content)


def number(text: str) -> int | float:
    """The number that a Go constant means. Raises ValueError."""
    if _INTEGER.fullmatch(text):
        integer = int(text.replace("_", ""), 8 if _OCTAL.fullmatch(text) else 0)
        if integer not in _INT64:
            raise ValueError(f"{text} overflows int")
        return integer
    if not _FLOAT.fullmatch(text):
        raise ValueError(f"bad number syntax: {quote(text)}")
    return float(text.replace("_", ""))
