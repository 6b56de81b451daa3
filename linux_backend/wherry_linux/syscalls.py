"""System calls, named as in section 2 of the manual.

Each takes Python values and raises KernelError with errno; none decides anything.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_long, c_uint64, c_ulong

import wherry.openat2
from wherry.errors import KernelError
from wherry_linux.constants import (
    CLONE_INTO_CGROUP,
    SYS_clone3,
    SYS_close_range,
    SYS_getcwd,
    SYS_ioprio_set,
    SYS_keyctl,
    SYS_mount_setattr,
    SYS_move_mount,
    SYS_open_tree,
    SYS_pivot_root,
)

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = c_long
_libc_locked = ctypes.PyDLL(None, use_errno=True)
_libc_locked.syscall.restype = c_long
libc.mount.argtypes = (c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
libc.umount2.argtypes = (c_char_p, c_int)
libc.prctl.argtypes = (c_int, c_ulong, c_ulong, c_ulong, c_ulong)
libc.setns.argtypes = (c_int, c_int)
libc.unshare.argtypes = (c_int,)
libc.personality.argtypes = (c_ulong,)


def check(result: int, action: str) -> int:
    """`result`, or KernelError saying that `action` failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise KernelError(f"{action}: {os.strerror(number)}", number)
    return result


def syscall(number: int, *arguments: object, action: str) -> int:
    """A call by number; integers are passed as long."""
    converted = (c_long(a) if isinstance(a, int) else a for a in arguments)
    return check(libc.syscall(c_long(number), *converted), action)


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    check(
        libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            fstype.encode() or None,
            flags,
            os.fsencode(data) or None,
        ),
        f"mount {fstype or source} on {target}",
    )


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    check(libc.umount2(os.fsencode(target), flags), f"unmount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    syscall(
        SYS_pivot_root, os.fsencode(new_root), os.fsencode(put_old), action=f"pivot_root {new_root}"
    )


def unshare(flags: int) -> None:
    """unshare(2)."""
    check(libc.unshare(flags), f"unshare {flags:#x}")


def setns(descriptor: int, nstype: int = 0) -> None:
    """setns(2)."""
    check(libc.setns(descriptor, nstype), "setns")


def prctl(option: int, argument: int = 0, argument3: int = 0) -> int:
    """prctl(2)."""
    return check(libc.prctl(option, argument, argument3, 0, 0), f"prctl {option}")


def personality(persona: int) -> None:
    """personality(2)."""
    check(libc.personality(persona), f"personality {persona:#x}")


def openat2(directory: int, path: str, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2): a descriptor that the caller owns, close-on-exec."""
    try:
        return wherry.openat2.openat2(directory, path, flags, mode=mode, resolve=resolve)
    except OSError as error:
        raise KernelError(f"open {path}: {error.strerror}", error.errno or 0) from error


def open_tree(directory: int, path: str, flags: int) -> int:
    """open_tree(2): a descriptor that the caller owns."""
    return syscall(SYS_open_tree, directory, os.fsencode(path), flags, action=f"open_tree {path}")


def move_mount(from_fd: int, from_path: str, to_fd: int, to_path: str, flags: int) -> None:
    """move_mount(2)."""
    syscall(
        SYS_move_mount,
        from_fd,
        os.fsencode(from_path),
        to_fd,
        os.fsencode(to_path),
        flags,
        action=f"move_mount to {to_path or to_fd}",
    )


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", c_uint64),
        ("attr_clr", c_uint64),
        ("propagation", c_uint64),
        ("userns_fd", c_uint64),
    )


def mount_setattr(
    directory: int,
    path: str,
    flags: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """mount_setattr(2), Linux 5.12."""
    attr = _MountAttr(attr_set, attr_clr, propagation, userns_fd)
    syscall(
        SYS_mount_setattr,
        directory,
        os.fsencode(path),
        flags,
        ctypes.byref(attr),
        ctypes.sizeof(attr),
        action=f"change the mount {path or directory}",
    )


def close_range(first: int, last: int, flags: int) -> None:
    """close_range(2), Linux 5.9."""
    syscall(SYS_close_range, first, last, flags, action="close_range")


def keyctl(operation: int, name: str | None) -> None:
    """keyctl(2), for KEYCTL_JOIN_SESSION_KEYRING."""
    syscall(SYS_keyctl, operation, None if name is None else name.encode(), action="join a keyring")


def fstatfs_type(descriptor: int) -> int:
    """fstatfs(2): the kind of file system that a descriptor is on."""
    buffer = ctypes.create_string_buffer(256)
    check(libc.fstatfs(descriptor, buffer), "find the type of a file system")
    return int.from_bytes(buffer.raw[:8], "little")


def is_below_root() -> bool:
    """getcwd(2): whether the working directory can be reached from the root directory.

    The C library's function would hide the difference.
    """
    buffer = ctypes.create_string_buffer(os.pathconf("/", "PC_PATH_MAX") + 1)
    size = len(buffer)
    syscall(SYS_getcwd, ctypes.byref(buffer), size, action="find the working directory")
    return buffer.value.startswith(b"/")


def ioprio_set(which: int, who: int, priority: int) -> None:
    """ioprio_set(2)."""
    syscall(SYS_ioprio_set, which, who, priority, action="set the I/O priority")


class _CloneArgs(ctypes.Structure):
    """struct clone_args of linux/sched.h, version 2."""

    _fields_ = tuple(
        (name, c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size",
            "tls", "set_tid", "set_tid_size", "cgroup",
        )
    )  # fmt: skip


def fork_into_cgroup(directory: int) -> int:
    """os.fork(2), the child in the control group whose directory is open (clone3(2), Linux 5.7).

    Moving a process that exists makes the kernel wait for all CPUs, ten milliseconds.
    The interpreter must have one thread only.
    """
    arguments = _CloneArgs(flags=CLONE_INTO_CGROUP, exit_signal=17, cgroup=directory)
    ctypes.pythonapi.PyOS_BeforeFork()
    # The interpreter's lock is kept: the child has to have it.
    pid = _libc_locked.syscall(
        c_long(SYS_clone3), ctypes.byref(arguments), ctypes.c_size_t(ctypes.sizeof(arguments))
    )
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    return check(pid, "fork into a control group")
