"""The step between this interpreter and a container's program.

Until a process has executed the container's program its /proc/self/exe is our
interpreter, a file of the host. An image can name /proc/self/exe as what is to be
executed (a link, a script's `#!`, a dynamic loader), and where its root is the host's
could then write to that file (CVE-2019-5736). So the interpreter executes a program of
some two hundred bytes in memory first, which executes the container's: by then there is
nothing of the host that /proc/self/exe could name.

It also reports: its argument vector is (ignored, path, argument 0, …), and if execve(2)
fails it writes the four bytes of errno to a descriptor, which closes when it succeeds.
Where nobody reads that, it tells on standard error, with a text for each errno.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from wherry.errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MFD_EXEC = 0x10
_F_ADD_SEALS = 1033
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # of seals, shrinking, growing and writing

# elf(5): a 64-bit little-endian executable, loaded here and begun after its headers.
_ADDRESS = 0x400000
_HEADERS = 64 + 2 * 56
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183}
_PT_LOAD, _PT_GNU_STACK = 1, 0x6474E551
_READ, _WRITE, _EXECUTE = 4, 2, 1

_ERRNOS = 134  # errno(3): EHWPOISON is the last
_LONGEST_NAME, _TEXT = 256, 384


def make(report: int, complaints: str = "") -> int:
    """A descriptor to execute, close-on-exec; what goes wrong is written to `report`.

    With `complaints` about a program nobody reads `report`, and standard error is told why
    the program could not be executed. `report` has to stay open across the first execve(2).
    """
    code = _PROGRAMS.get(_machine())
    texts = _texts(complaints) if complaints else b""
    return memory_program({} if code is None else {_machine(): lambda: code(report, texts)})


def _texts(name: str) -> bytes:
    """What to say of the program `name` for each errno: _ERRNOS texts of _TEXT bytes.

    Each has its length in front of it, in four bytes.
    """
    # A path may be far longer than what tells a reader which one it is.
    start = b"exec " + os.fsencode(name)[:_LONGEST_NAME] + b": "
    texts = (start + os.strerror(number).lower().encode() + b"\n" for number in range(_ERRNOS))
    return b"".join(struct.pack(f"<I{_TEXT - 4}s", len(text), text) for text in texts)


def memory_program(programs: Mapping[str, Callable[[], bytes]]) -> int:
    """A descriptor of a program in memory: this machine's of `programs`, by its name."""
    machine = _machine()
    if machine not in programs:
        raise KernelError(f"wherry cannot execute programs on {machine} machines")
    content = _elf(_ELF_MACHINES[machine], programs[machine]())
    try:
        descriptor = _memory_file()
    except OSError as error:
        raise KernelError(
            f"cannot make an executable file in memory: {error.strerror}",
            error.errno or 0,
            hint="sysctl vm.memfd_noexec must not be 2",
        ) from error
    os.write(descriptor, content)
    fcntl.fcntl(descriptor, _F_ADD_SEALS, _SEALS)
    return descriptor


def execute(program: int, arguments: list[str], variables: dict[str, str]) -> None:
    """Become a program in memory; returns only by an exception, an OSError."""
    try:
        os.execve(program, arguments, variables)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS):
            raise
    # A filter that knows execve(2) alone. What is executed has to be the very file.
    by_name = f"/proc/self/fd/{program}"
    if not os.path.samestat(os.stat(by_name), os.fstat(program)):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    os.execve(by_name, arguments, variables)


def _machine() -> str:
    """The machine's name, whatever personality(2) makes uname(2) say."""
    name = os.uname().machine
    return {"i686": "x86_64", "armv8l": "aarch64"}.get(name, name)


def _memory_file() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("wherry", flags | _MFD_EXEC)
    except OSError:  # before Linux 6.3, where every one is executable
        return os.memfd_create("wherry", flags)


def _elf(machine: int, code: bytes) -> bytes:
    size = _HEADERS + len(code)
    header = struct.pack(
        "<4s5B7xHHIQQQIHHHHHH",
        b"\x7fELF", 2, 1, 1, 0, 0,  # 64 bits, little-endian, version 1, System V
        2, machine, 1, _ADDRESS + _HEADERS, 64, 0, 0,  # an executable; entry; program headers
        64, 56, 2, 64, 0, 0,
    )  # fmt: skip
    load = struct.pack(
        "<IIQQQQQQ", _PT_LOAD, _READ | _EXECUTE, 0, _ADDRESS, _ADDRESS, size, size, 0x1000
    )
    stack = struct.pack("<IIQQQQQQ", _PT_GNU_STACK, _READ | _WRITE, 0, 0, 0, 0, 0, 16)
    return header + load + stack + code


def _x86_64(report: int, texts: bytes) -> bytes:
    def move(register: int, number: int) -> bytes:
        return struct.pack("<BI", 0xB8 + register, number)  # mov r32, imm32

    eax, edx, esi, edi = 0, 2, 6, 7
    syscall = b"\x0f\x05"
    # exit_group(1)
    leave = move(edi, 1) + move(eax, 231) + syscall
    if texts:
        tell = b"".join(
            (
                # write(2, text, length) of the texts behind the code
                struct.pack("<HI", 0xC069, _TEXT),  # imul eax, eax, _TEXT
                b"\x48\x8d\x35", struct.pack("<I", 3 + 2 + 4 + 12 + len(leave)),  # lea rsi, [rip+…]
                b"\x48\x01\xc6",      # add rsi, rax
                b"\x8b\x16",          # mov edx, [rsi]
                b"\x48\x83\xc6\x04",  # add rsi, 4
                move(edi, 2), move(eax, 1), syscall,
            )
        )  # fmt: skip
    else:
        tell = b"".join(
            (
                # write(report, &errno, 4)
                b"\x50",          # push rax
                b"\x48\x89\xe6",  # mov rsi, rsp
                move(edi, report), move(edx, 4), move(eax, 1), syscall,
            )
        )  # fmt: skip
    proceed = b"".join(
        (
            # execve(argv[1], &argv[2], envp): argc is at the stack's top, argv behind it
            b"\x48\x8b\x7c\x24\x10",  # mov rdi, [rsp+16]
            b"\x48\x8d\x74\x24\x18",  # lea rsi, [rsp+24]
            b"\x48\x8b\x04\x24",      # mov rax, [rsp]
            b"\x48\x8d\x54\xc4\x10",  # lea rdx, [rsp+rax*8+16]
            move(eax, 59), syscall,
            b"\xf7\xd8",              # neg eax
            tell,
        )
    )  # fmt: skip
    return b"".join(
        (
            # fcntl(report, F_SETFD, FD_CLOEXEC)
            move(edi, report), move(esi, 2), move(edx, 1), move(eax, 72), syscall,
            # Not open: this is not the first time here, the image led back to us.
            b"\x85\xc0",                          # test eax, eax
            struct.pack("<BB", 0x78, len(proceed)),  # js to the end
            proceed,
            leave,
            texts,
        )
    )  # fmt: skip


def _aarch64(report: int, texts: bytes) -> bytes:
    def move(register: int, number: int) -> int:
        return 0x52800000 | number << 5 | register  # movz w<register>, #number

    supervisor = 0xD4000001  # svc #0
    # exit_group(1)
    leave = (move(0, 1), move(8, 94), supervisor)
    tell: tuple[int, ...]
    if texts:
        tell = (
            # write(2, text, length) of the texts behind the code
            move(1, _TEXT),
            0x1B017C00,  # mul w0, w0, w1
            0x10000001 | (6 + len(leave)) << 5,  # adr x1, to the texts
            0x8B000021,  # add x1, x1, x0
            0xB8404422,  # ldr w2, [x1], #4
            move(0, 2), move(8, 64), supervisor,
        )  # fmt: skip
    else:
        tell = (
            # write(report, &errno, 4)
            0xF81F0FE0,  # str x0, [sp, #-16]!
            0x910003E1,  # mov x1, sp
            move(0, report), move(2, 4), move(8, 64), supervisor,
        )  # fmt: skip
    proceed = (
        # execve(argv[1], &argv[2], envp): argc is at the stack's top, argv behind it
        0xF9400BE0,  # ldr x0, [sp, #16]
        0x910063E1,  # add x1, sp, #24
        0xF94003E3,  # ldr x3, [sp]
        0x910043E2,  # add x2, sp, #16
        0x8B030C42,  # add x2, x2, x3, lsl #3
        move(8, 221), supervisor,
        0x4B0003E0,  # neg w0, w0
        *tell,
    )  # fmt: skip
    words = (
        # fcntl(report, F_SETFD, FD_CLOEXEC)
        move(0, report), move(1, 2), move(2, 1), move(8, 25), supervisor,
        # Not open: this is not the first time here, the image led back to us.
        0x37F80000 | (len(proceed) + 1) << 5,  # tbnz w0, #31, to the end
        *proceed,
        *leave,
    )  # fmt: skip
    return struct.pack(f"<{len(words)}I", *words) + texts


_PROGRAMS = {"x86_64": _x86_64, "aarch64": _aarch64}
