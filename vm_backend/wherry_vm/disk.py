"""The data disk: a sparse file, which holds what the guest has written and no more."""

from __future__ import annotations

import os
import sys

from wherry.errors import UsageError
from wherry.files import open_private, remove_file, storage_error, write_atomic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry_vm.machines import Machine

_MIB, _GIB = 1 << 20, 1 << 30
_LITTLE = 64 * _MIB
"""What is left of the host's disk when one is told of it: a layer, or a database's next step."""

NEW_DISK = "data.new"
"""A file that is there for as long as the disk may hold half a file system."""


def ensure_disk(machine: Machine) -> None:
    """Make the disk, or let it grow to what the settings say. Raises UsageError."""
    path = machine.file("data.img")
    wanted = machine.settings.disk * _GIB
    try:
        with open(path, "ab", opener=open_private) as file:
            there = os.fstat(file.fileno()).st_size
            if not there:
                # Until the guest has mounted it: it may be killed while it makes the file system.
                write_atomic(machine.file(NEW_DISK), b"new")
            if not there and sys.platform == "win32":
                _make_sparse(file.fileno())
            if there > wanted:
                raise UsageError(
                    f"the disk of machine {machine.name} has {there / _GIB:.0f} GiB: it can grow, "
                    "not shrink",
                    hint=f"wherry machine set --disk {there // _GIB} {machine.name}",
                )
            file.truncate(wanted)
    except OSError as error:
        raise storage_error(error, f"make {path}") from error


def is_new(machine: Machine) -> bool:
    """Whether the guest has never mounted the disk."""
    return os.path.exists(machine.file(NEW_DISK))


def settle_disk(machine: Machine) -> None:
    """The guest has mounted the disk: from now on it is not made anew, whatever it holds."""
    remove_file(machine.file(NEW_DISK))


def used(machine: Machine) -> int:
    """The bytes that the disk takes of the host's."""
    try:
        status = os.stat(machine.file("data.img"))
    except FileNotFoundError:
        return 0
    if sys.platform == "win32":
        return status.st_size
    return status.st_blocks * 512


def lack_of_space(machine: Machine) -> str:
    """What to tell whoever uses a machine whose host has hardly any disk left; or nothing.

    What does not fit the guest sees as a disk that fails, which says nothing of the reason.
    """
    import shutil

    free = shutil.disk_usage(machine.directory).free
    if free >= _LITTLE:
        return ""
    return (
        f"the host's disk has {free // _MIB} MiB left, and what machine {machine.name} cannot "
        f"write is an Input/output error there: make room, then "
        f"`wherry machine restart {machine.name}`"
    )


def _make_sparse(descriptor: int) -> None:
    """FSCTL_SET_SPARSE: NTFS allocates a file whole without it."""
    if sys.platform == "win32":
        import ctypes
        import msvcrt

        returned = ctypes.c_ulong()
        ctypes.windll.kernel32.DeviceIoControl(
            msvcrt.get_osfhandle(descriptor),
            0x900C4, None, 0, None, 0, ctypes.byref(returned), None,
        )  # fmt: skip
