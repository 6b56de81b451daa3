"""Linux's signals by name and number, on whatever system the command is typed."""

from __future__ import annotations

from wherry.errors import UsageError

_NAMES = (
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV",
    "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN",
    "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
)  # fmt: skip
_ALIASES = {"IOT": 6, "CLD": 17, "POLL": 29}
# glibc and musl keep 32 and 33 for themselves.
_RTMIN, _RTMAX = 34, 64


def read_signal(text: str) -> int:
    """The number of `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`. Raises UsageError."""
    if text.isascii() and text.isdigit():
        if len(text) < 4 and 1 <= int(text) <= _RTMAX:
            return int(text)
        raise UsageError(f"invalid signal: {text}")
    name = text.upper().removeprefix("SIG")
    if name in _NAMES:
        return _NAMES.index(name) + 1
    if name in _ALIASES:
        return _ALIASES[name]
    number = _real_time(name)
    if number is None:
        raise UsageError(f"invalid signal: {text}")
    return number


def _real_time(name: str) -> int | None:
    for base, number, sign in (("RTMIN", _RTMIN, 1), ("RTMAX", _RTMAX, -1)):
        offset = name.removeprefix(base)
        if name == base:
            return number
        if offset != name and offset[0] in "+-" and offset[1:].isdecimal() and len(offset) < 4:
            found = number + sign * int(offset[1:])
            right = offset[0] == ("+" if sign > 0 else "-")
            return found if right and _RTMIN <= found <= _RTMAX else None
    return None


def signal_name(number: int) -> str:
    """`SIGTERM` of 15."""
    if 1 <= number <= len(_NAMES):
        return f"SIG{_NAMES[number - 1]}"
    return f"SIGRTMIN+{number - _RTMIN}"
