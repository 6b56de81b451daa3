"""Names of files that Windows cannot have, as others write them there: pure functions.

Cygwin and WSL put a character that is not allowed at U+F000 above its code, and so do we:
what a container calls `a:b` or `aux` is kept under such a name, and shown as it was.
"""

from __future__ import annotations

import errno

_SHIFT = 0xF000
_FORBIDDEN = frozenset('<>:"|?*\\') | {chr(code) for code in range(1, 32)}
_DEVICES = frozenset(
    ("con", "prn", "aux", "nul", "conin$", "conout$",
     *(f"{name}{digit}" for name in ("com", "lpt") for digit in "123456789\u00b9\u00b2\u00b3"))
)  # fmt: skip


def to_windows(name: bytes) -> str:
    """The name on the disk. Raises OSError for one that is not UTF-8."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise OSError(errno.EINVAL, "Windows has no names that are not Unicode") from None
    text = "".join(_shifted(each) if each in _FORBIDDEN else each for each in text)
    if text.endswith((".", " ")):
        # Windows drops these at the end of a name.
        text = text[:-1] + _shifted(text[-1])
    if text.partition(".")[0].rstrip(" ").lower() in _DEVICES:
        text = _shifted(text[0]) + text[1:]
    return text


def from_windows(name: str) -> bytes:
    """The name that a container sees; what is not Unicode stays as it is on the disk."""
    text = "".join(
        chr(ord(each) - _SHIFT) if _SHIFT < ord(each) < _SHIFT + 128 else each for each in name
    )
    return text.encode(errors="surrogatepass")


def long_path(path: str) -> str:
    """`path`, which is absolute, in the form without a limit to its length."""
    path = path.replace("/", "\\")
    if path.startswith("\\\\?\\"):
        return path
    if path.startswith("\\\\"):
        return "\\\\?\\UNC\\" + path[2:]
    return "\\\\?\\" + path


def _shifted(character: str) -> str:
    return chr(ord(character) + _SHIFT)
