"""What a seccomp filter decides: an interpreter of classic BPF, and libseccomp's filters."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import os
import struct
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

ALLOW = 0x7FFF0000
LOG = 0x7FFC0000
TRACE = 0x7FF00000
NOTIFY = 0x7FC00000
ERRNO = 0x00050000
TRAP = 0x00030000
KILL_THREAD = 0x00000000
KILL_PROCESS = 0x80000000

TOKENS = {
    "x86_64": 0xC000003E,
    "x86": 0x40000003,
    "x32": 0xC000003E,
    "aarch64": 0xC00000B7,
    "arm": 0x40000028,
}
X32_BIT = 0x40000000


def run(program: bytes, token: int, number: int, arguments: Sequence[int] = ()) -> int:
    """The value that the program returns for a system call, by the kernel's rules."""
    padded = [*arguments, *[0] * 6][:6]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, token, 0, *padded)
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator = place = 0
    while True:
        code, jt, jf, k = instructions[place]
        place += 1
        match code:
            case 0x20:  # ld [k]
                assert k % 4 == 0
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x54:  # and #k
                accumulator &= k
            case 0x05:  # ja
                place += k
            case 0x15:  # jeq
                place += jt if accumulator == k else jf
            case 0x25:  # jgt
                place += jt if accumulator > k else jf
            case 0x35:  # jge
                place += jt if accumulator >= k else jf
            case 0x45:  # jset
                place += jt if accumulator & k else jf
            case 0x06:  # ret
                return int(k)
            case _:
                raise AssertionError(f"instruction {code:#x}")


def steps(program: bytes, token: int, number: int) -> int:
    """How many instructions a call without arguments takes."""
    padded = struct.pack("=IIQ6Q", number, token, 0, *[0] * 6)
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator = place = count = 0
    while True:
        code, jt, jf, k = instructions[place]
        place, count = place + 1, count + 1
        if code == 0x06:
            return count
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", padded, k)
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            place += k
        else:
            tests = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}
            place += jt if tests[code] else jf


class _Argument(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


_OPERATORS = ("", "NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
# libseccomp's own tokens: the kernel's, but for x32.
_LIBRARY_TOKENS = {**TOKENS, "x32": 0x4000003E}


class LibSeccomp:
    """Debian's libseccomp2, the library behind runc and crun."""

    def __init__(self, library: Any) -> None:
        self._library = library
        library.seccomp_init.restype = ctypes.c_void_p
        library.seccomp_init.argtypes = (ctypes.c_uint32,)
        library.seccomp_release.argtypes = (ctypes.c_void_p,)
        library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
        library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
        library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
        library.seccomp_rule_add_array.argtypes = (
            ctypes.c_void_p,
            ctypes.c_uint32,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.POINTER(_Argument),
        )
        library.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)

    def number(self, arch: str, name: str) -> int | None:
        """The number of a call, as the kernel sees it; None where there is none."""
        number: int = self._library.seccomp_syscall_resolve_name_arch(
            _LIBRARY_TOKENS[arch], name.encode()
        )
        return number if number >= 0 else None

    def compile(self, seccomp: Any, actions: dict[str, int], arches: Sequence[str]) -> bytes:
        """What libseccomp makes of a section, added to it as runc does."""
        default = _value(seccomp["defaultAction"], seccomp.get("defaultErrnoRet"), actions)
        context = self._library.seccomp_init(default)
        kill_process, bad_arch = actions["SCMP_ACT_KILL_PROCESS"], 2
        self._library.seccomp_attr_set(context, bad_arch, kill_process)
        for arch in arches:
            self._library.seccomp_arch_add(context, _LIBRARY_TOKENS[arch])
        for rule in seccomp["syscalls"]:
            action = _value(rule["action"], rule.get("errnoRet"), actions)
            if action == default:
                continue
            for name in rule["names"]:
                number = self._library.seccomp_syscall_resolve_name(name.encode())
                if number != -1:
                    self._add(context, action, number, rule.get("args") or [])
        with open(os.memfd_create("filter"), "w+b") as file:
            assert self._library.seccomp_export_bpf(context, file.fileno()) == 0
            file.seek(0)
            program = file.read()
        self._library.seccomp_release(context)
        return program

    def _add(self, context: int, action: int, number: int, arguments: list[Any]) -> None:
        converted = [
            _Argument(
                argument["index"],
                _OPERATORS.index(argument["op"].removeprefix("SCMP_CMP_")),
                argument["value"],
                argument.get("valueTwo", 0),
            )
            for argument in arguments
        ]
        one_by_one = len({argument["index"] for argument in arguments}) < len(arguments)
        for group in [[a] for a in converted] if one_by_one else [converted]:
            array = (_Argument * max(len(group), 1))(*group)
            self._library.seccomp_rule_add_array(context, action, number, len(group), array)


def _value(name: str, errno: int | None, actions: dict[str, int]) -> int:
    value = actions[name]
    return value | (1 if errno is None else errno) if value in (ERRNO, TRACE) else value


@functools.cache
def _load() -> LibSeccomp | None:
    try:
        return LibSeccomp(ctypes.CDLL("libseccomp.so.2"))
    except OSError:
        return None


def libseccomp() -> LibSeccomp:
    """The library, or skip this test."""
    library = _load()
    if library is None:
        pytest.skip("needs libseccomp2, which is not installed (see packages.txt)")
    return library
