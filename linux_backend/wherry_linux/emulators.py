"""Programs of another processor, which a container runs by an emulator of the host.

binfmt_misc is the host's, and only root tells it of emulators. Since Linux 6.7 a user
namespace may have one of its own (fs/binfmt_misc.c): a container that has a user namespace
gets it, where the host has an emulator and binfmt_misc does not know it.
"""

from __future__ import annotations

import os
import struct

from wherry.errors import KernelError
from wherry.kernel import kernel_version
from wherry_linux import constants as c
from wherry_linux.mounts import fd_path, open_in_root, remount_bind
from wherry_linux.syscalls import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PLACE = "/proc/sys/fs/binfmt_misc"
_FLAGS = c.MS_NOSUID | c.MS_NODEV | c.MS_NOEXEC
# By an image's word for a processor: qemu's, and of its ELF files the class (1: 32 bits),
# the byte order and e_machine; see elf(5).
_PROCESSORS = {
    "386": ("i386", 1, "<", 3),
    "amd64": ("x86_64", 2, "<", 62),
    "arm": ("arm", 1, "<", 40),
    "arm64": ("aarch64", 2, "<", 183),
    "loong64": ("loongarch64", 2, "<", 258),
    "mips64le": ("mips64el", 2, "<", 8),
    "ppc64le": ("ppc64le", 2, "<", 21),
    "riscv64": ("riscv64", 2, "<", 243),
    "s390x": ("s390x", 2, ">", 22),
}
# Processors that run the programs of another.
_NATIVE = (("x86_64", "386"), ("aarch64", "arm"))
_PT_INTERP = 3
_OWN_RULES_SINCE = (6, 7)


def runs(architecture: str) -> bool:
    """Whether containers run programs of a processor, by themselves or by an emulator."""
    if architecture not in _PROCESSORS:
        return False
    name, machine = _PROCESSORS[architecture][0], os.uname().machine
    if name == machine or (machine, architecture) in _NATIVE or _is_known(_magic(architecture)):
        return True
    return kernel_version() >= _OWN_RULES_SINCE and bool(_find_emulator(name))


def emulate(architecture: str) -> Callable[[int], None] | None:
    """What is to be done in the container's namespaces, with its root, for programs to run.

    None where they do anyway, and where there is no emulator.
    """
    if architecture not in _PROCESSORS or (os.uname().machine, architecture) in _NATIVE:
        return None
    name, _, order, _ = _PROCESSORS[architecture]
    magic = _magic(architecture)
    # The system is any, and the type ET_EXEC or ET_DYN.
    mask = b"\xff" * 7 + b"\x00" + b"\xff" * 8 + struct.pack(f"{order}HH", 0xFFFE, 0xFFFF)
    emulator = "" if _is_known(magic) else _find_emulator(name)
    if not emulator:
        return None
    # P: argv[0] is kept. OC: files with set-user-ID have its effect. F: the emulator is
    # opened here and now; the container's root has not got it.
    rule = f":qemu-{name}:M::{_escaped(magic)}:{_escaped(mask)}:{emulator}:POCF"
    return lambda root: _register(root, os.fsencode(rule))


def _magic(architecture: str) -> bytes:
    """What programs of a processor begin with."""
    _, bits, order, machine = _PROCESSORS[architecture]
    start = b"\x7fELF" + bytes((bits, 1 if order == "<" else 2, 1))
    return start + bytes(9) + struct.pack(f"{order}HH", 2, machine)


def _register(root: int, rule: bytes) -> None:
    try:
        directory = open_in_root(root, _PLACE)
        try:
            mount("binfmt_misc", fd_path(directory), "binfmt_misc", _FLAGS)
        finally:
            os.close(directory)
        mounted = open_in_root(root, _PLACE)
        try:
            file = os.open("register", os.O_WRONLY | os.O_CLOEXEC, dir_fd=mounted)
            try:
                os.write(file, rule)
            finally:
                os.close(file)
            remount_bind(fd_path(mounted), _FLAGS | c.MS_RDONLY)
        finally:
            os.close(mounted)
    except (KernelError, OSError):
        pass  # an older kernel: the program is refused, as it would be without


def _escaped(content: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in content)


def _is_known(magic: bytes) -> bool:
    """Whether the host's binfmt_misc has an emulator, and one that containers find."""
    try:
        names = os.listdir(_PLACE)
    except OSError:
        return False
    return any(_has_rule(f"{_PLACE}/{name}", magic) for name in names)


def _has_rule(path: str, magic: bytes) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return False
    is_open = any(line.startswith("flags:") and "F" in line for line in lines)
    return is_open and "enabled" in lines and f"magic {magic.hex()}" in lines


def _find_emulator(name: str) -> str:
    """qemu's emulator of a processor on the PATH; "" where there is none."""
    for directory in os.get_exec_path():
        for path in (f"{directory}/qemu-{name}-static", f"{directory}/qemu-{name}"):
            if ":" not in path and os.access(path, os.X_OK) and _is_static(path):
                return os.path.abspath(path)
    return ""


def _is_static(path: str) -> bool:
    """Whether a program asks for no loader: containers have not got the host's."""
    with open(path, "rb") as file:
        head = file.read(4096)
    if head[:5] != b"\x7fELF\x02":
        return False
    (start,) = struct.unpack_from("=Q", head, 32)
    size, count = struct.unpack_from("=HH", head, 54)
    headers = range(start, min(start + size * count, len(head) - 3), size or 1)
    return all(struct.unpack_from("=I", head, at) != (_PT_INTERP,) for at in headers)
