"""A BPF program into the kernel, as this process's filter."""

from __future__ import annotations

import ctypes
import errno

from wherry.errors import KernelError, UsageError
from wherry_linux.constants import SYS_seccomp
from wherry_linux.syscalls import prctl, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# linux/seccomp.h
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_MODE_FILTER = 2
_PR_SET_SECCOMP = 22
_TSYNC = 1 << 0
_SPEC_ALLOW = 1 << 2
_NEW_LISTENER = 1 << 3
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": _TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": _SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 1 << 5,
}


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install(program: bytes, flags: Sequence[str] | None = None, *, listen: bool = False) -> int:
    """Filter this thread's system calls from here on. There is no way back.

    Needs CAP_SYS_ADMIN or no_new_privs. With `listen` the result is a descriptor of the
    notifications, the caller's to close; otherwise 0.
    """
    bits = flag_bits(flags)
    if listen:
        # TSYNC answers with a thread's id where the listener's descriptor is expected;
        # here is but one thread.
        bits = (bits | _NEW_LISTENER) & ~_TSYNC
    argument = _Program(len(program) // 8, program)
    try:
        return _seccomp(bits, argument)
    except KernelError as error:
        if flags is None and bits & _SPEC_ALLOW and error.errno == errno.EINVAL:
            # The flag is ours and only about speed; it came with 4.17.
            return _seccomp(bits & ~_SPEC_ALLOW, argument)
        raise _explained(error) from error


def flag_bits(flags: Sequence[str] | None) -> int:
    """The flags of seccomp(2). Raises UsageError.

    Where a profile has no word of them, the slow mitigation of speculative store bypass
    is left off, as by runc; kernels do so of themselves since 5.16.
    """
    if flags is None:
        return _SPEC_ALLOW
    try:
        return sum({FLAGS[flag] for flag in flags})
    except KeyError as error:
        raise UsageError(f"unknown seccomp flag {error.args[0]}") from None


def _seccomp(bits: int, argument: _Program) -> int:
    pointer = ctypes.byref(argument)
    try:
        return syscall(
            SYS_seccomp, _SECCOMP_SET_MODE_FILTER, bits, pointer, action="install seccomp filter"
        )
    except KernelError as error:
        if error.errno != errno.ENOSYS or bits & ~_SPEC_ALLOW:
            raise
        # Before seccomp(2), in 3.17, and where a filter around us does not know it.
        return prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(argument))


def _explained(error: KernelError) -> KernelError:
    hints = {
        errno.EINVAL: "the kernel does not know a flag of the profile, or lacks seccomp filters "
        "(CONFIG_SECCOMP_FILTER); --security-opt seccomp=unconfined runs without",
        errno.EACCES: "it takes CAP_SYS_ADMIN, or --security-opt no-new-privileges",
        errno.EBUSY: "this process has a seccomp listener already",
    }
    return KernelError(error.message, error.errno, hint=hints.get(error.errno))
