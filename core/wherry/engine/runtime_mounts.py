"""A container's volumes, binds and image mounts as entries of runtime-spec's `mounts`."""

from __future__ import annotations

import os

from wherry.container.overlay import overlay_mount
from wherry.engine.mount_sources import bind_source, overlay_directory
from wherry.errors import Unsupported
from wherry.kernel import kernel_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from wherry.container.mount_points import MountPoint
    from wherry.oci.runtime_spec import IDMapping, Mount
    from wherry.volume.store import VolumeStore

    Maps = tuple[list[IDMapping], list[IDMapping]]
    Ids = tuple[Maps | None, bool]

SUBPATH = "x-wherry.subpath="
"""Our own option of a mount: the part of its source that is mounted, found when it is."""


def oci_mounts(
    points: Sequence[MountPoint],
    *,
    directory: str,
    volumes: VolumeStore,
    layer_path: Callable[[str], str],
    ids: Ids = (None, False),
) -> list[Mount]:
    """The volumes, binds and image mounts of a container that is about to start.

    `ids` are the maps of its user namespace, and whether who mounts has its ids already.
    """
    mounts: list[Mount] = []
    for position, point in enumerate(points):
        if point["Type"] == "tmpfs":
            continue
        mounts.append(
            _start_mount(point, overlay_directory(directory, position), volumes, layer_path, ids)
        )
    return mounts


def _start_mount(
    point: MountPoint,
    overlay: str,
    volumes: VolumeStore,
    layer_path: Callable[[str], str],
    ids: Ids,
) -> Mount:
    asked, target = point["Spec"], point["Destination"]
    own = asked.get("Wherry") or {}
    upper, work = os.path.join(overlay, "upper"), os.path.join(overlay, "work")
    access = [] if point["RW"] else ["ro"]
    if point["Type"] == "image":
        lower = [layer_path(diff_id) for diff_id in reversed(point["Layers"])]
        mount = overlay_mount(target, lower, upper=upper, work=work, options=access)
        # Where it is mounted for as long as it takes to find a part of it.
        mount["source"] = overlay
        subpath = (asked.get("ImageOptions") or {}).get("Subpath")
    elif point["Type"] == "volume":
        volume = volumes.find(point["Name"])
        mount = volume.to_oci(target)
        if volume.files is None and volume.options and volume.options["type"] == "tmpfs":
            access += ["tmpcopyup"] if point.get("CopyUp") else []
        elif volume.files is not None:
            access = _access(point)
        mount["options"] += access
        subpath = (asked.get("VolumeOptions") or {}).get("Subpath")
        if subpath and volume.files is None:
            raise Unsupported(
                f"volume-subpath needs a volume of files, and {volume.name} is a mount of its own"
            )
    else:
        source = bind_source(asked)
        if own.get("Overlay"):
            return overlay_mount(target, [source], upper=upper, work=work, options=access)
        mount = _bind(point, source)
        subpath = None
    if subpath:
        mount["options"].append(SUBPATH + subpath)
    _add_flags(mount, own, ids)
    return mount


def _bind(point: MountPoint, source: str) -> Mount:
    given = point["Spec"].get("BindOptions") or {}
    return {
        "destination": point["Destination"],
        "type": "bind",
        "source": source,
        "options": [
            "bind" if given.get("NonRecursive") else "rbind",
            point["Propagation"] or "rprivate",
            *_access(point),
        ],
    }


def _access(point: MountPoint) -> list[str]:
    """Read-only as far down as was asked, and as the kernel can."""
    if point["RW"]:
        return []
    given = point["Spec"].get("BindOptions") or {}
    if given.get("NonRecursive") or given.get("ReadOnlyNonRecursive"):
        return ["ro"]
    if kernel_version() >= (5, 12):
        return ["rro"]
    if given.get("ReadOnlyForceRecursive"):
        raise Unsupported(
            "bind-recursive=readonly needs mount_setattr(2)", hint="Linux 5.12 has it"
        )
    return ["ro"]


def _add_flags(mount: Mount, own: Mapping[str, Any], ids: Ids) -> None:
    mount["options"] += own.get("Flags") or ()
    if "IDMap" not in own:
        return
    from wherry.container.userns import mount_maps, read_idmap

    maps, inside = ids
    ranges = read_idmap(own["IDMap"])
    if ranges:
        uid_maps, gid_maps = maps or (None, None)
        mount["uidMappings"] = mount_maps(ranges.get("uids") or (), uid_maps, inside=inside)
        mount["gidMappings"] = mount_maps(ranges.get("gids") or (), gid_maps, inside=inside)
    if ranges or not inside:
        mount["options"].append("idmap")
