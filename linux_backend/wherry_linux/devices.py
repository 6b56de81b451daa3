"""The host's devices, as containers get them."""

from __future__ import annotations

import os
import posixpath
import stat

from wherry.container.bundle import HostDevice
from wherry.errors import NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.oci.runtime_spec import LinuxDevice

# Every container has these, or others of their name, whatever it is given.
_OWN = frozenset(
    ("/dev/console", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom",
     "/dev/tty", "/dev/ptmx")
)  # fmt: skip
_OWN_DIRECTORIES = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/.lxc", "/dev/.udev")


def find(path: str, inside: str, access: str) -> list[HostDevice]:
    """The device at `path`, called `inside` there; all of those below a directory."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        raise NotFound(
            f'error gathering device information while adding custom device "{path}":'
            " no such file or directory"
        ) from None
    if stat.S_ISDIR(mode):
        found = []
        for directory, _, names in os.walk(path):
            for name in sorted(names):
                below = os.path.join(directory, name)
                device = _read(below, posixpath.join(inside, os.path.relpath(below, path)))
                if device is not None:
                    found.append(HostDevice(device=device, access=access))
        return found
    device = _read(path, inside)
    if device is None:
        raise UsageError(f'"{path}" is not a device')
    return [HostDevice(device=device, access=access)]


def everything(*, openable: bool) -> list[HostDevice]:
    """Every device below /dev that a container has none of its own of.

    `openable` leaves out those that this user may not open: rootless, they would be
    there and refuse everything.
    """
    found = []
    for directory, directories, names in os.walk("/dev"):
        directories[:] = [
            name for name in directories if os.path.join(directory, name) not in _OWN_DIRECTORIES
        ]
        for name in names:
            path = os.path.join(directory, name)
            if path in _OWN or os.path.islink(path):
                continue
            if openable and not os.access(path, os.R_OK | os.W_OK):
                continue
            device = _read(path, path)
            if device is not None:
                found.append(HostDevice(device=device, access="rwm"))
    return found


def _read(path: str, inside: str) -> LinuxDevice | None:
    """The device node at `path`; None where it is something else."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if stat.S_ISCHR(found.st_mode):
        kind = "c"
    elif stat.S_ISBLK(found.st_mode):
        kind = "b"
    else:
        return None
    return {
        "type": kind,
        "path": inside,
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }
