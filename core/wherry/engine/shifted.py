"""An unprivileged container's layers, where its ids are not those that layers are kept with.

Layers are unpacked once, for a container whose root is the caller. With `--userns keep-id`,
`nomap` or `auto` root is somebody else, and the kernel lets no unprivileged user idmap a
mount. So such a container stands on copies of its layers that belong to its own ids:

    DATA/layers/sha256/<diff id>/ids-<maps>   for every container with these maps
    DATA/containers/<id>/layers/<diff id>     with ids that are nobody's afterwards (auto)
"""

from __future__ import annotations

import os
import sys

from wherry.container.copy import copy_tree, remove_tree
from wherry.container.userns import host_of, inside_of
from wherry.engine import idmaps
from wherry.errors import Unsupported
from wherry.files import Lock, make_dir
from wherry.image.layers import layer_directory
from wherry.lean import dump_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wherry.container.store import Container
    from wherry.engine.idmaps import Maps
    from wherry.runtime import Runtime

    Owners = Callable[[os.stat_result], tuple[int, int]]

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)


def layer_path(container: Container, diff_id: str) -> str:
    """The files of a layer that a container stands on."""
    directory = layer_directory(diff_id)
    shift = idmaps.shifted_maps(container)
    if shift is None:
        return f"{directory}/diff"
    if idmaps.are_temporary(container):
        return container.path("layers", os.path.basename(directory))
    from hashlib import sha256

    return f"{directory}/ids-{sha256(dump_json(shift[0]).encode()).hexdigest()[:16]}"


def prepare(container: Container, diff_ids: Iterable[str], runtime: Runtime) -> None:
    """Make the copies that a new container stands on, and its own layer its root's."""
    shift = idmaps.shifted_maps(container)
    if shift is None:
        return
    missing = [
        (f"{layer_directory(diff_id)}/diff", layer_path(container, diff_id))
        for diff_id in diff_ids
        if not os.path.isdir(layer_path(container, diff_id))
    ]
    maps, usual = shift
    root = owner_of(container, 0, 0)

    def make() -> None:
        if sys.platform == "win32":
            raise Unsupported("containers are made on Linux only")
        for source, target in missing:
            _copy_layer(source, target, _translator(maps, usual))
        for name in ("upper", "work"):
            if os.path.isdir(container.path(name)):
                os.chown(container.path(name), *root)

    runtime.unshared(make)


def _copy_layer(source: str, target: str, owners: Owners) -> None:
    with Lock(make_dir(os.path.dirname(target), 0o711)):
        if os.path.isdir(target):
            return
        draft = f"{target}.tmp"
        remove_tree(draft)
        os.mkdir(draft)
        copy_layer(source, draft, owners)
        os.rename(draft, target)


def copy_layer(source: str, target: str, owners: Owners) -> None:
    """Copy a layer into an empty directory, with other owners."""
    descriptors = [os.open(path, _DIRECTORY) for path in (source, target)]
    try:
        copy_tree(*descriptors, owners=owners)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def original_owners(container: Container) -> Owners | None:
    """The user of the container who owns what belongs to one of us; None where that is the same."""
    shift = idmaps.shifted_maps(container)
    return None if shift is None else _translator(shift[1], shift[0])


def owner_of(container: Container, uid: int, gid: int) -> tuple[int, int]:
    """Whom of us a user of the container is, where work on its files is done."""
    shift = idmaps.shifted_maps(container)
    if shift is None:
        return uid, gid
    return _translate(*shift, 0, uid), _translate(*shift, 1, gid)


def _translator(maps: Maps, others: Maps) -> Owners:
    """What ids of a namespace with `maps` are in one with `others`."""
    return lambda found: (
        _translate(maps, others, 0, found.st_uid),
        _translate(maps, others, 1, found.st_gid),
    )


def _translate(maps: Maps, others: Maps, kind: int, number: int) -> int:
    host = host_of(maps[kind], number)
    found = None if host is None else inside_of(others[kind], host)
    # An id that is not there. Of us it is the one whom such a container has not, or as a user.
    return 0 if found is None else found
