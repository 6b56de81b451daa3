"""The ids of a container's user namespace, and those that `--userns auto` leases.

    DATA/containers/<id>/ids.json   the maps of a container that has ids of its own, or
                                    without root those of another, which it joins

The file is there before the container is, and goes with its directory: however `create`
or `rm` ends, a range is taken as long as something may use it, and no longer.
"""

from __future__ import annotations

import os

from wherry import paths
from wherry.container.namespaces import has_own_ids, joined_container
from wherry.container.shape import IDS
from wherry.container.userns import auto_maps, is_auto, read_auto
from wherry.errors import Conflict, CorruptState, NotFound, Unsupported, UsageError
from wherry.files import Lock, read_json, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.container.store import Container, ContainerStore
    from wherry.container.userns import AutoUsers
    from wherry.oci.runtime_spec import IDMapping
    from wherry.runtime import Runtime

    Maps = tuple[list[IDMapping], list[IDMapping]]
    Range = tuple[int, int]

_FILE = "ids.json"
# As many as a user has by subuid(5), so that every id that images have is there.
_SIZE = 65536
# Of the 65536 that a user has, for all containers.
_ROOTLESS_SIZE = 2048


def assign(container: Container, store: ContainerStore, runtime: Runtime) -> None:
    """Settle the ids of a new container, where they are not everybody's. Raises Conflict."""
    mode = str(container.body["HostConfig"].get("UsernsMode") or "")
    if is_auto(mode):
        _lease(container, read_auto(mode), store, runtime)
    elif mode.startswith(("keep-id", "nomap")) and runtime.is_rootless():
        maps = runtime.id_maps(mode)
        if maps is not None:
            _write(container, {"uid": maps[0], "gid": maps[1]}, runtime)
    elif mode == "nomap":
        raise UsageError(
            "--userns nomap is for unprivileged users", hint="root is never mapped by --userns auto"
        )
    elif runtime.is_rootless():
        _borrow(container, store, runtime)


def _borrow(container: Container, store: ContainerStore, runtime: Runtime) -> None:
    """Give a new container the ids of the one that it joins."""
    try:
        owner = store.find(joined_container(container.body))
    except NotFound:
        return  # the start says so
    maps = _load(owner)
    if maps is not None:
        # A lease has two holders then: it ends with the last.
        own = {"uid": maps["uid"], "gid": maps["gid"], "leased": maps.get("leased", False)}
        _write(container, own, runtime)


def _lease(container: Container, asked: AutoUsers, store: ContainerStore, runtime: Runtime) -> None:
    size = asked.size or (_ROOTLESS_SIZE if runtime.is_rootless() else _SIZE)
    fixed = {"uid": asked.uid_maps, "gid": asked.gid_maps}
    granted = dict(zip(("uid", "gid"), runtime.id_ranges(), strict=True))
    with Lock(paths.containers()):
        taken = _taken(store)
        maps: dict[str, Any] = {"leased": True}
        for kind in ("uid", "gid"):
            if not granted[kind]:
                raise Unsupported(
                    "--userns auto needs subordinate ids, and this user has none",
                    hint="`wherry doctor` shows the line that grants them",
                )
            theirs = [*taken[kind], *_host_ranges(fixed[kind])]
            first = _find_room(granted[kind], theirs, size)
            if first is None:
                raise Conflict(
                    f"--userns auto: there is no range of {size} {kind}s left",
                    hint="auto:size=N asks for fewer; `wherry rm` gives back a container's range",
                )
            maps[kind] = auto_maps(first, size, fixed[kind])
        _write(container, maps, runtime)


def _write(container: Container, maps: dict[str, Any], runtime: Runtime) -> None:
    if runtime.is_rootless():
        usual = runtime.id_maps("")
        assert usual is not None
        maps = {**maps, "usual": {"uid": usual[0], "gid": usual[1]}}
    write_json(container.path(_FILE), maps)


def _taken(store: ContainerStore) -> dict[str, list[Range]]:
    """What the containers that there are hold, and those that are being made or removed."""
    taken: dict[str, list[Range]] = {"uid": [], "gid": []}
    for container_id in store.ids():
        maps = _read(os.path.join(paths.container(container_id), _FILE))
        for kind, ranges in taken.items():
            ranges += _host_ranges(maps[kind] if maps and maps.get("leased") else ())
    return taken


def _host_ranges(maps: Sequence[IDMapping]) -> list[Range]:
    return [(entry["hostID"], entry["size"]) for entry in maps]


def _find_room(granted: Sequence[Range], taken: Sequence[Range], size: int) -> int | None:
    """The first of `size` ids in a row that are granted and not taken."""
    for start, count in granted:
        here = start
        for first, number in sorted(taken):
            if here + size <= first:
                break
            here = max(here, first + number)
        if here + size <= start + count:
            return here
    return None


def own_maps(container: Container) -> Maps | None:
    """The maps of a container whose ids are not everybody's; None for any other."""
    maps = _load(container)
    return None if maps is None else (maps["uid"], maps["gid"])


def shifted_maps(container: Container) -> tuple[Maps, Maps] | None:
    """The maps of a container whose files have the host's ids of them, and this user's usual ones.

    None where files have the owners that images and volumes give them.
    """
    maps = _load(container)
    if maps is None or "usual" not in maps:
        return None
    return (maps["uid"], maps["gid"]), (maps["usual"]["uid"], maps["usual"]["gid"])


def are_temporary(container: Container) -> bool:
    """Whether the maps end with a container: no other one will have the like."""
    return bool((_load(container) or {}).get("leased"))


def _load(container: Container) -> dict[str, Any] | None:
    if not has_own_ids(container.body):
        return None
    maps = _read(container.path(_FILE))
    if maps is None and is_auto(str(container.body["HostConfig"].get("UsernsMode") or "")):
        raise CorruptState(f"{container.path(_FILE)} is missing: it has the container's ids")
    return maps


def _read(path: str) -> dict[str, Any] | None:
    try:
        maps: dict[str, Any] = read_json(path, IDS)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return maps
