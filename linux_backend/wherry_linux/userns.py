"""Work done where a container's ids are our own.

A rootless container's files belong to subordinate ids, which the user may touch only
from inside a user namespace that maps them.
"""

from __future__ import annotations

import os

from wherry import paths
from wherry.errors import KernelError, WherryError
from wherry.forked import Child
from wherry_linux.constants import CLONE_NEWNS, CLONE_NEWUSER, MS_PRIVATE, MS_REC
from wherry_linux.idmap import rootless_maps, with_own, write_maps
from wherry_linux.syscalls import mount, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.oci.runtime_spec import IDMapping


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
    mapped_read, mapped_write = os.pipe()
    ready_read, ready_write = os.pipe()
    with Child(
        lambda: _enter(flags, ready_write, mapped_read, function),
        given=(ready_write, mapped_read),
        kept=(ready_read, mapped_write),
    ) as child:
        try:
            if os.read(ready_read, 1) and maps is not None:
                write_maps(child.pid, *maps)
            os.write(mapped_write, b"1")
        except BrokenPipeError:
            pass  # the child failed, and its answer says why
        finally:
            # It has all that is open here, locks among it, and must not wait with them for ever.
            os.close(mapped_write)
            os.close(ready_read)
        return child.result()


def _enter(flags: int, ready: int, mapped: int, function: Callable[[], Any]) -> Any:
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
