"""The files of a running container, seen from outside of it."""

from __future__ import annotations

import os

from wherry import paths
from wherry.errors import Conflict
from wherry.forked import Child
from wherry_linux.constants import CLONE_NEWUSER, PR_SET_DUMPABLE
from wherry_linux.syscalls import libc, prctl, setns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def in_container(pid: int, function: Callable[[int], Any]) -> Any:
    """`function()` of a descriptor of process `pid`'s root directory, with its ids.

    It is run by a forked child in that process's user namespace, which keeps our mount
    namespace and our root directory. The descriptor is taken before, since from inside
    the container's user namespace its processes cannot be looked at.
    """
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        raise Conflict(f"process {pid} of the container has ended") from None
    try:
        if os.path.samestat(os.fstat(namespace), os.stat("/proc/self/ns/user")):
            return function(root)
        with Child(lambda: _enter(namespace, lambda: function(root))) as child:
            return child.result()
    finally:
        os.close(root)
        os.close(namespace)


def _enter(namespace: int, function: Callable[[], Any]) -> Any:
    paths.keep()
    # The container's processes must not look into us, who have the host's root directory.
    prctl(PR_SET_DUMPABLE, 0)
    setns(namespace, CLONE_NEWUSER)
    # Denied where a single id is mapped; there is no group to give up then.
    libc.setgroups(0, None)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    return function()
