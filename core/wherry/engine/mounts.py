"""A container's volumes, binds and image mounts, from the create body to runtime-spec.

    create_mounts    resolve_mounts   what is mounted where; makes volumes. Kept in the record
                     prepare_mounts   fills empty volumes with the image's files (copy-up),
                                      changes owners (:U), makes room for overlays (:O)
    start_mounts     oci_mounts       the entries of runtime-spec's `mounts`
                                      and what is written anew for each run: secrets, /etc/hosts

tmpfs mounts need nothing of the host; wherry.container.default_mounts makes them.
"""

from __future__ import annotations

import os

from wherry.container.mount import clean_target, mounts_of, split_volume
from wherry.container.namespaces import has_own_ids
from wherry.errors import CorruptState, NotFound, UsageError
from wherry.files import read_json, remove_file, write_json
from wherry.image.layers import layer_path
from wherry.volume.store import ANONYMOUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from wherry.container.mount_points import MountPoint
    from wherry.container.request import RunRequest
    from wherry.container.spec import Mount as Asked
    from wherry.container.store import Container, ContainerStore
    from wherry.engine.runtime_mounts import Maps
    from wherry.oci.runtime_spec import Mount
    from wherry.runtime import Runtime
    from wherry.volume.store import Users, VolumeStore

# In a container's directory, while it has no record: the anonymous volumes made for it.
_DRAFT = "volumes.draft"


def create_mounts(
    container: Container,
    runtime: Runtime,
    volumes: VolumeStore,
    store: ContainerStore,
    request: RunRequest,
) -> list[MountPoint]:
    """What a new container has mounted, ready to be used.

    Call it within `volumes.held()`, and record the container before that ends: until
    then nothing else knows that the volumes are used. Call `forget_draft` after that,
    and `abandon` where it does not come to that.
    """
    points = resolve_mounts(
        container.body,
        volumes=volumes,
        mounts_of_container=lambda name: store.find(name).record["Mounts"],
        image_layers=lambda name: request.layers.get(name) or _image_layers(name),
        draft=container.path(_DRAFT),
    )
    if has_own_ids(container.body):
        from wherry.engine import shifted

        layers = [layer for point in points for layer in point.get("Layers") or ()]
        shifted.prepare(container, layers, runtime)
    if points:
        from wherry.engine.mount_preparation import prepare_mounts

        prepare_mounts(
            points,
            directory=container.directory,
            lower=lower_directories(container),
            user=container.body.get("User") or "",
            owner=owner_within(container),
            runtime=runtime,
            volumes=volumes,
        )
    if (container.body.get("Wherry") or {}).get("Secrets"):
        from wherry.secrets import keep_secrets

        keep_secrets(
            container.id, container.body, request.secrets, runtime, owner_within(container)
        )
    return points


def start_mounts(
    container: Container,
    runtime: Runtime,
    volumes: VolumeStore,
    store: ContainerStore,
    maps: Maps | None,
) -> list[Mount]:
    """The entries of runtime-spec's `mounts` for a container that is about to start.

    `maps` are those of its user namespace; None for the host's.
    """
    from wherry.engine.runtime_mounts import oci_mounts
    from wherry.network.files import file_mounts

    mounts = oci_mounts(
        container.record["Mounts"],
        directory=container.directory,
        volumes=volumes,
        layer_path=lambda diff_id: layer_of(container, diff_id),
        ids=(maps, False),
    )
    if (container.body.get("Wherry") or {}).get("Secrets"):
        from wherry.secrets import secret_mounts

        mounts += secret_mounts(container.id, container.body, runtime, owner_within(container))
    taken = {mount["destination"] for mount in mounts}
    return mounts + [
        mount for mount in file_mounts(container, store) if mount["destination"] not in taken
    ]


def lower_directories(container: Container) -> list[str]:
    """What a container's root file system is made of, the topmost first."""
    if rootfs := (container.body.get("Wherry") or {}).get("Rootfs"):
        return [rootfs]
    return [layer_of(container, diff_id) for diff_id in reversed(container.record["Layers"])]


def layer_of(container: Container, diff_id: str) -> str:
    """The files of a layer, as a container stands on them."""
    if not has_own_ids(container.body):
        return layer_path(diff_id)
    from wherry.engine import shifted

    return shifted.layer_path(container, diff_id)


def owner_within(container: Container) -> Callable[[int, int], tuple[int, int]]:
    """What says whom of us a user and a group of the container are."""
    if not has_own_ids(container.body):
        return lambda uid, gid: (uid, gid)
    from wherry.engine import shifted

    return lambda uid, gid: shifted.owner_of(container, uid, gid)


def _image_layers(name: str) -> Sequence[str]:
    from wherry.image.layers import missing_layers
    from wherry.image.store import ImageStore

    image = ImageStore().find(name)
    if missing_layers(image):
        raise NotFound(f"image {name} is not unpacked", hint=f"`wherry pull {name}` unpacks it")
    return image.diff_ids


# ---- create ----


def forget_draft(container: Container) -> None:
    """The container is recorded: its volumes live as long as it does, or longer."""
    remove_file(container.path(_DRAFT))


def abandon(directory: str, volumes: VolumeStore, users: Users) -> None:
    """Remove the anonymous volumes of a container that has not come to be."""
    try:
        names = read_json(os.path.join(directory, _DRAFT), [str])
    except (OSError, CorruptState):
        return
    volumes.remove_unused(names, users)


def resolve_mounts(
    body: Mapping[str, Any],
    *,
    volumes: VolumeStore,
    mounts_of_container: Callable[[str], Sequence[MountPoint]],
    image_layers: Callable[[str], Sequence[str]],
    draft: str = "",
) -> list[MountPoint]:
    """Everything that is mounted in a new container; volumes that are not there are made.

    `body` is merged with its image's config. `mounts_of_container` knows the mounts of
    the containers of `--volumes-from`, `image_layers` the diff ids of `type=image`. The
    names of anonymous volumes are in the file `draft` before they are made.
    """
    host = body.get("HostConfig") or {}
    points: dict[str, MountPoint] = {}
    for text in host.get("VolumesFrom") or ():
        for point in _points_from(text, mounts_of_container):
            points[point["Destination"]] = point
    modes = _bind_modes(host.get("Binds") or ())
    explicit = len(host.get("Binds") or ()) + len(host.get("Mounts") or ())
    for position, asked in enumerate(mounts_of(body)):  # type: ignore[arg-type]
        target = clean_target(asked["Target"])
        # A VOLUME of the image gives way to what --volumes-from has brought.
        if position < explicit or target not in points:
            points[target] = _resolve(asked, target, image_layers)
            if mode := modes.get(target) or ("z" if _is_asked_volume(asked) else ""):
                points[target]["Mode"] = mode
    anonymous = anonymous_volumes(list(points.values()))
    if anonymous and draft:
        write_json(draft, anonymous)
    for point in points.values():
        # --volumes-from brings volumes that are there.
        if point["Type"] == "volume" and not point["Source"]:
            _make_volume(point, volumes)
    return list(points.values())


def _is_asked_volume(asked: Asked) -> bool:
    return asked["Type"] == "volume" and bool(asked.get("Source"))


def _bind_modes(binds: Sequence[str]) -> dict[str, str]:
    """The options of each `-v`, by target, as inspect shows them."""
    parts = [split_volume(text) for text in binds]
    return {clean_target(part[1]): part[2] for part in parts if len(part) == 3}


def _points_from(
    text: str, mounts_of_container: Callable[[str], Sequence[MountPoint]]
) -> list[MountPoint]:
    """The mounts of `--volumes-from CONTAINER[:MODE]`."""
    container, _, mode = text.partition(":")
    if not container:
        raise UsageError(f"malformed volumes-from specification: {text}")
    if mode not in ("", "ro", "rw", "z", "Z"):
        raise UsageError(f"invalid mode: {mode}")
    points = []
    for point in mounts_of_container(container):
        if point["Type"] == "tmpfs":
            continue
        copied: MountPoint = {**point, "RW": point["RW"] and mode != "ro"}
        if mode:
            copied["Mode"] = mode
        copied.pop("Anonymous", None)
        copied.pop("CopyUp", None)
        points.append(copied)
    return points


def _resolve(
    asked: Asked,
    target: str,
    image_layers: Callable[[str], Sequence[str]],
) -> MountPoint:
    point: MountPoint = {
        "Type": asked["Type"],
        "Source": "",
        "Destination": target,
        "Mode": "",
        "RW": not asked.get("ReadOnly", False),
        "Propagation": "",
        "Spec": asked,
    }
    if asked["Type"] == "bind":
        from wherry.engine.mount_sources import bind_source

        point["Source"] = bind_source(asked)
        point["Propagation"] = (asked.get("BindOptions") or {}).get("Propagation") or "rprivate"
    elif asked["Type"] == "volume":
        given = asked.get("VolumeOptions") or {}
        point.update({"Name": asked.get("Source") or os.urandom(32).hex(), "Driver": "local"})
        if not asked.get("Source"):
            point["Anonymous"] = True
        if not given.get("NoCopy") and not given.get("Subpath"):
            point["CopyUp"] = True
    elif asked["Type"] == "image":
        point["Source"] = asked["Source"]
        point["Layers"] = list(image_layers(asked["Source"]))
    return point


def _make_volume(point: MountPoint, volumes: VolumeStore) -> None:
    given = point["Spec"].get("VolumeOptions") or {}
    driver = given.get("DriverConfig") or {}
    labels = given.get("Labels")
    if point.get("Anonymous"):
        labels = {**(labels or {}), ANONYMOUS: ""}
    volume = volumes.create(
        point["Name"],
        driver=driver.get("Name") or "",
        options=driver.get("Options"),
        labels=labels,
    )
    point["Source"] = volume.mountpoint


def anonymous_volumes(points: Sequence[MountPoint]) -> list[str]:
    """The volumes that `--rm` and `rm --volumes` remove with their container."""
    return [point["Name"] for point in points if point.get("Anonymous")]


def volume_names(points: Sequence[MountPoint]) -> list[str]:
    """The volumes that a container uses."""
    return [point["Name"] for point in points if point["Type"] == "volume"]


_SHOWN = ("Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation")


def inspect_mounts(points: Sequence[MountPoint]) -> list[dict[str, Any]]:
    """`Mounts` as docker's inspect shows it."""
    return [{key: point[key] for key in _SHOWN if key in point} for point in points]  # type: ignore[literal-required]
