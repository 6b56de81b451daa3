"""Work done where a container's ids are our own.

A rootless container's files belong to subordinate ids, which the user may touch only
from inside a user namespace that maps them.
"""

from __future__ import annotations

import os

from wherry import paths
from wherry.errors import KernelError, WherryError
from wherry.forked import answer_of, report
from wherry.lean import signals
from wherry_linux.constants import CLONE_NEWNS, CLONE_NEWUSER, MS_PRIVATE, MS_REC
from wherry_linux.idmap import rootless_maps, with_own, write_maps
from wherry_linux.syscalls import mount, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from wherry.oci.runtime_spec import IDMapping

_INTERRUPTS = (signals.SIGINT, signals.SIGTERM, signals.SIGHUP, signals.SIGUSR1)


def run_unshared(
    function: Callable[[], Any],
    *,
    mounts: bool = False,
    maps: tuple[list[IDMapping], list[IDMapping]] | None = None,
) -> Any:
    """`function()` where container ids are this process's own.

    For root that is right here; for others, or with `mounts` (which asks for a mount
    namespace that ends with the call), in a forked child that inherits every
    descriptor. The result crosses as JSON, a WherryError as itself. `maps` take the place
    of the usual ones; what is this user's own can be reached in any case.
    """
    is_root = os.geteuid() == 0
    if is_root and not mounts:
        return function()
    if is_root:
        return in_child(function, CLONE_NEWNS, None)
    uid, gid = os.geteuid(), os.getegid()
    if maps is None:
        maps = rootless_maps(uid, gid)
    else:
        maps = with_own(maps[0], uid), with_own(maps[1], gid)
    return in_child(function, CLONE_NEWNS | CLONE_NEWUSER, maps)


def in_child(
    function: Callable[[], Any],
    flags: int,
    maps: tuple[list[IDMapping], list[IDMapping]] | None,
) -> Any:
    """`function()` in a forked child with new namespaces; `maps` for a new user namespace."""
    result_read, result_write = os.pipe2(os.O_CLOEXEC)
    mapped_read, mapped_write = os.pipe2(os.O_CLOEXEC)
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    # An interrupt finds no child, or one that is seen to: it has all that is open here, locks
    # among it, and would keep them for ever while it waits.
    before = signals.pthread_sigmask(signals.SIG_BLOCK, ())
    signals.pthread_sigmask(signals.SIG_BLOCK, _INTERRUPTS)
    child = os.fork()
    if child == 0:
        for descriptor in (result_read, mapped_write, ready_read):
            os.close(descriptor)
        report(result_write, lambda: _enter(before, flags, ready_write, mapped_read, function))
    for descriptor in (result_write, mapped_read, ready_write):
        os.close(descriptor)
    try:
        try:
            signals.pthread_sigmask(signals.SIG_SETMASK, before)
            if os.read(ready_read, 1) and maps is not None:
                write_maps(child, *maps)
            os.write(mapped_write, b"1")
        except BrokenPipeError:
            pass  # the child failed, and its report says why
        finally:
            os.close(mapped_write)
            os.close(ready_read)
        return answer_of(result_read)
    finally:
        os.close(result_read)
        os.waitpid(child, 0)


def _enter(
    mask: Iterable[int], flags: int, ready: int, mapped: int, function: Callable[[], Any]
) -> Any:
    signals.pthread_sigmask(signals.SIG_SETMASK, mask)
    paths.keep()
    try:
        unshare(flags)
    except KernelError as error:
        error.hint = "`wherry doctor` tells what keeps this user from making namespaces"
        raise
    os.write(ready, b"1")
    os.close(ready)
    if not os.read(mapped, 1):
        raise WherryError("the id maps could not be written")
    if flags & CLONE_NEWUSER:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    mount("", "/", "", MS_REC | MS_PRIVATE)
    return function()
