"""Which devices a container may use: `linux.resources.devices` as a BPF program (cgroup v2).

A container outside of any user namespace can make nodes of every device (CAP_MKNOD is
docker's default), and an image can bring them. So it is the control group that decides
which of them can be opened: Documentation/admin-guide/cgroup-v2.rst, "Device controller".
"""

from __future__ import annotations

import ctypes
import os
import struct

from wherry_linux.constants import SYS_bpf
from wherry_linux.syscalls import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.oci.runtime_spec import LinuxDeviceCgroup

# What every container may do, whatever its rules say: make nodes, which is harmless, and
# use null, zero, full, random, urandom, tty, console, ptmx and its terminals.
_ALWAYS = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    *(("c", 1, minor, "rwm") for minor in (3, 5, 7, 8, 9)),
    *(("c", 5, minor, "rwm") for minor in (0, 1, 2)),
    ("c", 136, None, "rwm"),
)

# linux/bpf.h
_BPF_PROG_LOAD, _BPF_PROG_ATTACH = 5, 8
_BPF_PROG_TYPE_CGROUP_DEVICE, _BPF_CGROUP_DEVICE = 15, 6
_BPF_F_ALLOW_MULTI = 2
_KINDS = {"b": 1, "c": 2}
_ACCESSES = {"m": 1, "r": 2, "w": 4}

# Instructions: operation, registers (source << 4 | destination), offset, immediate.
_LOAD = 0x61  # of 32 bits
_MOVE, _MOVE_REGISTER, _AND, _SHIFT_RIGHT = 0xB4, 0xBC, 0x54, 0x74
_JUMP_UNLESS_EQUAL = 0x55
_EXIT = 0x95

Key = tuple[str, "int | None", "int | None"]


def restrict(directory: str, rules: Sequence[LinuxDeviceCgroup]) -> None:
    """Let the group at `directory` use the devices that `rules` allow. Raises KernelError."""
    everything, exceptions = evaluate(rules)
    if everything and not exceptions:
        return
    program = assemble(everything, exceptions)
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        loaded = _load(program)
        try:
            # With what is attached above: every one of them has to agree.
            attributes = struct.pack("4I", group, loaded, _BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI)
            _bpf(_BPF_PROG_ATTACH, attributes, "attach the device filter")
        finally:
            os.close(loaded)
    finally:
        os.close(group)


def evaluate(rules: Sequence[LinuxDeviceCgroup]) -> tuple[bool, dict[Key, set[str]]]:
    """Whether devices are allowed, and the exceptions to that: later rules are stronger."""
    everything = True
    exceptions: dict[Key, set[str]] = {}
    for rule in rules:
        kind = rule.get("type") or "a"
        access = set(rule.get("access") or "rwm")
        major, minor = (
            None if number is None or number < 0 else number
            for number in (rule.get("major"), rule.get("minor"))
        )
        if kind == "a":
            # As in the devices controller of version 1, numbers then mean nothing.
            everything, exceptions = rule["allow"], {}
        elif rule["allow"] != everything:
            exceptions.setdefault((kind, major, minor), set()).update(access)
        else:
            exceptions.get((kind, major, minor), set()).difference_update(access)
    if not everything:
        for kind, major, minor, letters in _ALWAYS:
            exceptions.setdefault((kind, major, minor), set()).update(letters)
    return everything, {key: access for key, access in exceptions.items() if access}


def assemble(everything: bool, exceptions: dict[Key, set[str]]) -> bytes:
    """The program that answers 1 for what is allowed, by what `evaluate` found."""
    # r2 to r5: the kind, the access, the numbers (struct bpf_cgroup_dev_ctx, at r1).
    code = [
        _instruction(_LOAD, 2, source=1, offset=0),
        _instruction(_MOVE_REGISTER, 3, source=2),
        _instruction(_AND, 2, value=0xFFFF),
        _instruction(_SHIFT_RIGHT, 3, value=16),
        _instruction(_LOAD, 4, source=1, offset=4),
        _instruction(_LOAD, 5, source=1, offset=8),
    ]
    for (kind, major, minor), access in exceptions.items():
        tests = [(2, _KINDS[kind])]
        tests += [(register, n) for register, n in ((4, major), (5, minor)) if n is not None]
        bits = sum(_ACCESSES[letter] for letter in access)
        # Allowed if it asks for nothing else; denied if it asks for any of it.
        code += _exception(tests, bits, allow=not everything)
    code += _answer(everything)
    return b"".join(code)


def _exception(tests: list[tuple[int, int]], bits: int, *, allow: bool) -> list[bytes]:
    # A 64-bit comparison of a 32-bit value: loads and moves of 32 bits clear the rest.
    if allow:
        asked = [
            _instruction(_MOVE_REGISTER, 1, source=3),
            _instruction(_AND, 1, value=~bits & 7),
            _instruction(_JUMP_UNLESS_EQUAL, 1, offset=2),
        ]
    else:
        asked = [
            _instruction(_MOVE_REGISTER, 1, source=3),
            _instruction(_AND, 1, value=bits),
            _instruction(_JUMP_UNLESS_EQUAL, 1, offset=1),
            _instruction(0x05, 0, offset=2),
        ]
    code = [*asked, *_answer(allow)]
    for count, (register, number) in enumerate(reversed(tests)):
        code.insert(
            0,
            _instruction(_JUMP_UNLESS_EQUAL, register, offset=len(asked) + 2 + count, value=number),
        )
    return code


def _answer(allow: bool) -> list[bytes]:
    return [_instruction(_MOVE, 0, value=int(allow)), _instruction(_EXIT, 0)]


def _instruction(
    operation: int, destination: int, *, source: int = 0, offset: int = 0, value: int = 0
) -> bytes:
    return struct.pack("<BBhi", operation, source << 4 | destination, offset, value)


def _load(program: bytes) -> int:
    instructions = ctypes.create_string_buffer(program, len(program))
    license_text = ctypes.create_string_buffer(b"")
    attributes = struct.pack(
        "2I2Q2IQ2I16s",
        _BPF_PROG_TYPE_CGROUP_DEVICE,
        len(program) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(license_text),
        0,
        0,
        0,
        0,
        0,
        b"wherry_devices",
    )
    return _bpf(_BPF_PROG_LOAD, attributes, "load the device filter")


def _bpf(command: int, attributes: bytes, action: str) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return syscall(SYS_bpf, command, buffer, len(attributes), action=action)
