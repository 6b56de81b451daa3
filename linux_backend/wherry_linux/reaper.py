"""`--init`: the first process of a container that looks after others for the program.

A program that is process 1 gets no signal that it has no handler for, and every orphan
of its container as a child of its own. With `--init` process 1 is a program of some
hundred bytes in memory instead: it forwards each signal to the container's program, reaps
whatever ends, and ends as the program does. It holds nothing of our interpreter, neither
memory nor a file of the host that /proc/1/exe could name.
"""

from __future__ import annotations

import os
import struct

from wherry.lean import signals
from wherry_linux import constants as c
from wherry_linux import trampoline
from wherry_linux.syscalls import close_range

NAME = "wherry-init"


def make() -> int:
    """A descriptor of the program to execute; see `split`."""
    return trampoline.memory_program(_PROGRAMS)


def split(program: int, *, has_terminal: bool) -> None:
    """Fork: the child returns to become the program, this process becomes its init.

    Returns in this process only by an exception.
    """
    # What comes from here on waits until it can be forwarded.
    signals.pthread_sigmask(signals.SIG_BLOCK, signals.valid_signals())
    child = os.fork()
    if child == 0:
        # A process group of its own, or what the terminal sends would come twice.
        os.setpgid(0, 0)
        if has_terminal:
            os.tcsetpgrp(0, os.getpid())
        signals.pthread_sigmask(signals.SIG_SETMASK, [])
        return
    close_range(3, 0x7FFFFFFF, c.CLOSE_RANGE_CLOEXEC)
    trampoline.execute(program, [NAME, str(child)], {})


def _x86_64() -> bytes:
    return bytes.fromhex(
        # ebx = the child: the digits of argv[1]
        "488b742410"      # mov rsi, [rsp+16]
        "31db"            # xor ebx, ebx
        "0fb606"          # digit: movzx eax, byte [rsi]
        "48ffc6"          # inc rsi
        "83e830"          # sub eax, '0'
        "7807"            # js ready
        "6bdb0a"          # imul ebx, ebx, 10
        "01c3"            # add ebx, eax
        "ebee"            # jmp digit
        "6aff"            # ready: push -1 (every signal)
        # rt_sigtimedwait(&every, NULL, NULL, 8)
        "4889e7"          # wait: mov rdi, rsp
        "31f6"            # xor esi, esi
        "31d2"            # xor edx, edx
        "41ba08000000"    # mov r10d, 8
        "b880000000"      # mov eax, 128
        "0f05"            # syscall
        "85c0"            # test eax, eax
        "78e8"            # js wait
        "83f811"          # cmp eax, SIGCHLD
        "740d"            # je reap
        # kill(child, signal)
        "89df"            # mov edi, ebx
        "89c6"            # mov esi, eax
        "b83e000000"      # mov eax, 62
        "0f05"            # syscall
        "ebd6"            # jmp wait
        # wait4(-1, &status, WNOHANG, NULL), until there is none
        "bfffffffff"      # reap: mov edi, -1
        "488d7424f8"      # lea rsi, [rsp-8]
        "ba01000000"      # mov edx, WNOHANG
        "4531d2"          # xor r10d, r10d
        "b83d000000"      # mov eax, 61
        "0f05"            # syscall
        "85c0"            # test eax, eax
        "7eb9"            # jle wait
        "39d8"            # cmp eax, ebx
        "75df"            # jne reap
        # exit_group(the child's code, or 128 + the signal that ended it)
        "0fb67c24f9"      # movzx edi, byte [rsp-7]
        "8b4424f8"        # mov eax, [rsp-8]
        "83e07f"          # and eax, 0x7f
        "7406"            # je leave
        "8db880000000"    # lea edi, [rax+128]
        "b8e7000000"      # leave: mov eax, 231
        "0f05"            # syscall
    )  # fmt: skip


def _aarch64() -> bytes:
    words = (
        # w19 = the child: the digits of argv[1]
        0xF9400BE1,  # ldr x1, [sp, #16]
        0x2A1F03F3,  # mov w19, wzr
        0x52800143,  # mov w3, #10
        0x38401420,  # digit: ldrb w0, [x1], #1
        0x7100C000,  # subs w0, w0, #'0'
        0x54000064,  # b.mi ready
        0x1B030273,  # madd w19, w19, w3, w0
        0x17FFFFFC,  # b digit
        0x92800000,  # ready: mov x0, #-1 (every signal)
        0xF81F0FE0,  # str x0, [sp, #-16]!
        # rt_sigtimedwait(&every, NULL, NULL, 8)
        0x910003E0,  # wait: mov x0, sp
        0xAA1F03E1,  # mov x1, xzr
        0xAA1F03E2,  # mov x2, xzr
        0x52800103,  # mov w3, #8
        0x52801128,  # mov w8, #137
        0xD4000001,  # svc #0
        0x37FFFF40,  # tbnz w0, #31, wait
        0x7100441F,  # cmp w0, #SIGCHLD
        0x540000C0,  # b.eq reap
        # kill(child, signal)
        0x2A0003E1,  # mov w1, w0
        0x2A1303E0,  # mov w0, w19
        0x52801028,  # mov w8, #129
        0xD4000001,  # svc #0
        0x17FFFFF3,  # b wait
        # wait4(-1, &status, WNOHANG, NULL), until there is none
        0x12800000,  # reap: mov w0, #-1
        0xD10043FF,  # sub sp, sp, #16
        0x910003E1,  # mov x1, sp
        0x52800022,  # mov w2, #WNOHANG
        0xAA1F03E3,  # mov x3, xzr
        0x52802088,  # mov w8, #260
        0xD4000001,  # svc #0
        0xB84107E1,  # ldr w1, [sp], #16
        0x6B1F001F,  # cmp w0, wzr
        0x54FFFD2D,  # b.le wait
        0x6B13001F,  # cmp w0, w19
        0x54FFFEA1,  # b.ne reap
        # exit_group(the child's code, or 128 + the signal that ended it)
        0x72001820,  # ands w0, w1, #0x7f
        0x54000060,  # b.eq exited
        0x11020000,  # add w0, w0, #128
        0x14000002,  # b leave
        0x53087C20,  # exited: lsr w0, w1, #8
        0x52800BC8,  # leave: mov w8, #94
        0xD4000001,  # svc #0
    )  # fmt: skip
    return struct.pack(f"<{len(words)}I", *words)


_PROGRAMS = {"x86_64": _x86_64, "aarch64": _aarch64}
