"""A view of the control groups in which the peers can work.

On a hybrid host (version 1 controllers, and version 2 at `/sys/fs/cgroup/unified`) crun
and podman refuse to start. They get a mount namespace without the version 2 mount;
wherry is measured in the host's own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from pathlib import Path

_CLONE_NEWNS = 0x0002_0000
_CLONE_FS = 0x0000_0200
_UNIFIED = "/sys/fs/cgroup/unified"
GROUP = "wherry-bench"
"""Where all peers put their containers."""

_libc = ctypes.CDLL(None, use_errno=True)


class View:
    """A mount namespace, held open by this descriptor."""

    _current: int | None = None

    def __init__(self, process: int | str) -> None:
        self._descriptor = os.open(f"/proc/{process}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def enter(self) -> None:
        """Let this process, and so what it starts, see the system this way."""
        if View._current == self._descriptor:
            return
        # The kernel asks that nobody shares our root and working directory.
        if _libc.unshare(_CLONE_FS) or _libc.setns(self._descriptor, _CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "cannot change the mount namespace")
        View._current = self._descriptor


def host_view() -> View:
    return View("self")


def peers_view() -> View:
    """The host's view, less the version 2 mount of a hybrid host."""
    if not os.path.ismount(_UNIFIED):
        return host_view()
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"umount {_UNIFIED} && echo && exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    view = View(holder.pid)
    holder.communicate()
    return view


def remove_groups() -> None:
    """End what still runs in the peers' groups, and remove the groups."""
    for directory, _, _ in os.walk("/sys/fs/cgroup", topdown=False):
        if GROUP not in directory.split("/"):
            continue
        with contextlib.suppress(OSError):
            for pid in Path(directory, "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
            os.rmdir(directory)
