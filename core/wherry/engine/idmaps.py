"""The ids of a container's user namespace, and those that `--userns auto` leases.

    DATA/containers/<id>/ids.json   the maps of a container that has ids of its own

The file is there before the container is, and goes with its directory: however `create`
or `rm` ends, a range is taken as long as something may use it, and no longer.
"""

from __future__ import annotations

import os

from wherry import paths
from wherry.container.userns import auto_maps, is_auto, read_auto
from wherry.errors import Conflict, CorruptState, Unsupported
from wherry.files import Lock, read_json, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.container.store import Container, ContainerStore
    from wherry.oci.runtime_spec import IDMapping, Mount, Spec
    from wherry.runtime import Runtime

    Maps = tuple[list[IDMapping], list[IDMapping]]
    Range = tuple[int, int]

IDMAP = "x-wherry.idmap"
"""Our own option of a mount: idmapped, with what is mounted below it where that can be."""

_FILE = "ids.json"
# As many as a user has by subuid(5), so that every id that images have is there.
_SIZE = 65536


def lease(container: Container, store: ContainerStore, runtime: Runtime) -> None:
    """Take a range for a new container, if it is to have one of its own. Raises Conflict."""
    mode = str(container.body["HostConfig"].get("UsernsMode") or "")
    if not is_auto(mode):
        return
    if runtime.is_rootless():
        raise Unsupported(
            "--userns auto is not supported without root",
            hint="private (the default), host, keep-id and container:NAME are",
        )
    asked = read_auto(mode)
    size = asked.size or _SIZE
    fixed = {"uid": asked.uid_maps, "gid": asked.gid_maps}
    granted = dict(zip(("uid", "gid"), runtime.id_ranges(), strict=True))
    with Lock(paths.containers()):
        taken = _taken(store)
        maps = {}
        for kind in ("uid", "gid"):
            theirs = [*taken[kind], *_host_ranges(fixed[kind])]
            first = _find_room(granted[kind], theirs, size)
            if first is None:
                raise Conflict(
                    f"--userns auto: there is no range of {size} {kind}s left",
                    hint="auto:size=N asks for fewer; `wherry rm` gives back a container's range",
                )
            maps[kind] = auto_maps(first, size, fixed[kind])
        write_json(container.path(_FILE), maps)


def _taken(store: ContainerStore) -> dict[str, list[Range]]:
    """What the containers that there are hold, and those that are being made or removed."""
    taken: dict[str, list[Range]] = {"uid": [], "gid": []}
    for container_id in store.ids():
        maps = _read(os.path.join(paths.container(container_id), _FILE))
        for kind, ranges in taken.items():
            ranges += _host_ranges(maps[kind] if maps else ())
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


def leased(container: Container) -> Maps | None:
    """The maps of a container that has a range of its own; None for any other."""
    if not is_auto(str(container.body["HostConfig"].get("UsernsMode") or "")):
        return None
    maps = _read(container.path(_FILE))
    if maps is None:
        raise CorruptState(f"{container.path(_FILE)} is missing: it has the container's ids")
    return maps["uid"], maps["gid"]


def _read(path: str) -> dict[str, Any] | None:
    try:
        maps = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not isinstance(maps, dict) or not maps.keys() >= {"uid", "gid"}:
        raise CorruptState(f"{path} is damaged: it has no maps of ids")
    return maps


def changes_owners(maps: Maps | None) -> bool:
    """Whether a file has another owner in the container than here."""
    return maps is not None and any(
        entry["containerID"] != entry["hostID"] for kind in maps for entry in kind
    )


def shift(spec: Spec, given: Sequence[Mount]) -> None:
    """Have what comes from the host idmapped, so that its files keep their owners.

    `given` are the volumes, binds and files among the spec's mounts; the root is one, too.
    """
    own = {mount["destination"] for mount in given}
    for mount in spec["mounts"]:
        if mount["destination"] != "/" and mount["destination"] not in own:
            continue
        options = mount.setdefault("options", [])
        is_mapped = mount.get("uidMappings") or "idmap" in options
        if mount["type"] in ("bind", "overlay") and not is_mapped:
            options.append(IDMAP)
