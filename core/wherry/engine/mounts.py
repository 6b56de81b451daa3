"""A container's volumes, binds and image mounts, from the create body to runtime-spec.

    create_mounts    resolve_mounts   what is mounted where; makes volumes. Kept in the record
                     prepare_mounts   fills empty volumes with the image's files (copy-up),
                                      changes owners (:U), makes room for overlays (:O)
    start_mounts     oci_mounts       the entries of runtime-spec's `mounts`
                                      and what is written anew for each run: secrets, /etc/hosts

tmpfs mounts need nothing of the host; wherry.container.default_mounts makes them.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from wherry.container.copy import change_owner_of, copy_attributes, copy_tree, empty_directory
from wherry.container.mount import clean_target, mounts_of, split_volume
from wherry.container.namespaces import has_own_ids
from wherry.container.overlay import overlay_mount
from wherry.errors import (
    CorruptState,
    KernelError,
    NotFound,
    Unsupported,
    UsageError,
    WherryError,
)
from wherry.files import Lock, make_dir, read_json, remove_file, write_json
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
    from wherry.oci.runtime_spec import IDMapping, Mount
    from wherry.runtime import Runtime
    from wherry.volume.store import Users, Volume, VolumeStore

    Maps = tuple[list[IDMapping], list[IDMapping]]
    Ids = tuple[Maps | None, bool]

# In a container's directory, while it has no record: the anonymous volumes made for it.
_DRAFT = "volumes.draft"
_FILE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)

SUBPATH = "x-wherry.subpath="
"""Our own option of a mount: the part of its source that is mounted, found when it is."""


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
        point["Source"] = _bind_source(asked)
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


def _bind_source(asked: Asked) -> str:
    """The host path of a bind, which `-v` makes where it is missing."""
    source = asked["Source"]
    try:
        os.stat(source)
    except FileNotFoundError:
        if not (asked.get("BindOptions") or {}).get("CreateMountpoint"):
            raise UsageError(
                f'invalid mount config for type "bind": bind source path does not exist: {source}',
                hint="-v makes a missing directory, and so does --mount with bind-create-src",
            ) from None
        try:
            os.makedirs(source, 0o755, exist_ok=True)
        except OSError as error:
            raise WherryError(
                f"error while creating mount source path '{source}': {error.strerror}"
            ) from error
    except OSError as error:
        raise WherryError(f"cannot read bind source path {source}: {error.strerror}") from error
    return source


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


def prepare_mounts(
    points: Sequence[MountPoint],
    *,
    directory: str,
    lower: Sequence[str],
    user: str,
    runtime: Runtime,
    volumes: VolumeStore,
    owner: Callable[[int, int], tuple[int, int]] = lambda uid, gid: (uid, gid),
) -> None:
    """What has to be done once before a container can use its mounts.

    `directory` is the container's own; `lower` are the directories that its root file
    system is made of, the topmost first; `user` is the body's, and `owner` says whom of us
    the container's ids are. Safe to call again after a crash.
    """
    overlays = _overlay_directories(points, directory)
    filled = [
        (volume, point["Destination"])
        for point in points
        if point.get("CopyUp")
        for volume in (volumes.find(point["Name"]),)
        if _wants_files(volume) and may_hold(lower, point["Destination"])
    ]
    owned = [
        source
        for point in points
        if (point["Spec"].get("Wherry") or {}).get("Chown")
        for source in (_source_of(point, volumes),)
        if source is not None
    ]
    if not filled and not owned and not (overlays and runtime.is_rootless()):
        _make_overlays(overlays)
        return
    target = make_dir(os.path.join(directory, "root"), 0o755)

    def prepare() -> None:
        _make_overlays(overlays)
        if filled or owned:
            runtime.mount_overlay(lower, "", "", target)
            root = os.open(target, _DIRECTORY)
            try:
                for volume, destination in filled:
                    _fill(volume, root, destination, runtime)
                if owned:
                    _give(owned, owner(*_user_ids(user, root, runtime)))
            finally:
                os.close(root)

    runtime.unshared(prepare, mounts=True)


def _source_of(point: MountPoint, volumes: VolumeStore) -> str | None:
    """The host path whose files are seen; None where there is none to be changed."""
    if point["Type"] == "volume":
        return volumes.find(point["Name"]).files
    return point["Source"] if point["Type"] == "bind" else None


# ---- copy-up ----


def _wants_files(volume: Volume) -> bool:
    """Whether a volume is empty, or its filling was cut short."""
    if volume.files is None:
        return False  # a file system that is mounted anew in each container
    if os.path.exists(_staged(volume)):
        return True
    try:
        with os.scandir(volume.files) as entries:
            return next(entries, None) is None
    except PermissionError:
        return True  # closed to us here; `_fill` looks again with the container's rights
    except OSError as error:
        raise WherryError(
            f"cannot read the files of volume {volume.name}: {error.strerror}"
        ) from error


def may_hold(lower: Sequence[str], path: str) -> bool:
    """Whether some layer has `path`, or a symbolic link on the way to it."""
    for layer in lower:
        here = layer
        for part in path.strip("/").split("/"):
            here = f"{here}/{part}"
            try:
                mode = os.lstat(here).st_mode
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR):
                    break
                return True
            if stat.S_ISLNK(mode):
                return True
        else:
            return True
    return False


def _staged(volume: Volume) -> str:
    return os.path.join(volume.directory, "staged")


def _fill(volume: Volume, root: int, destination: str, runtime: Runtime) -> None:
    """Copy what the image has at `destination` into an empty volume.

    The copy is made beside the volume's files, then moved among them entry by entry.
    `staged` has its name only once it is whole: whatever moment this is killed at, the
    next container that uses the volume goes on, and nothing a container has written
    is ever taken away.
    """
    assert volume.files is not None
    with Lock(volume.directory):
        try:
            source = runtime.open_in_root(root, destination, flags=_DIRECTORY)
        except KernelError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return
            raise
        data = os.open(volume.files, _DIRECTORY)
        try:
            if volume.files != volume.mountpoint:
                # A host directory, perhaps of another file system.
                if not os.listdir(data):
                    copy_tree(source, data)
                return
            if not os.path.exists(_staged(volume)):
                if os.listdir(data):
                    return
                _stage(source, volume)
            _move_in(volume, data)
        finally:
            os.close(source)
            os.close(data)


def _stage(source: int, volume: Volume) -> None:
    draft = f"{_staged(volume)}.tmp"
    try:
        os.mkdir(draft, 0o700)
    except FileExistsError:
        pass
    target = os.open(draft, _DIRECTORY)
    try:
        empty_directory(target)
        copy_tree(source, target)
    finally:
        os.close(target)
    os.rename(draft, _staged(volume))


def _move_in(volume: Volume, data: int) -> None:
    staged = os.open(_staged(volume), _DIRECTORY)
    try:
        # Last first: the attributes of a directory change with what is moved into it.
        attributes = os.fstat(staged)
        present = set(os.listdir(data))
        for name in os.listdir(staged):
            if name not in present:
                os.rename(name, name, src_dir_fd=staged, dst_dir_fd=data)
        copy_attributes(staged, data, attributes)
        empty_directory(staged)
    finally:
        os.close(staged)
    os.rmdir(_staged(volume))


# ---- owners, overlays ----


def _user_ids(user: str, root: int, runtime: Runtime) -> tuple[int, int]:
    from wherry.container.users import lookup_user

    texts = [_read_in_root(root, path, runtime) for path in ("/etc/passwd", "/etc/group")]
    return lookup_user(user, *texts)


def _read_in_root(root: int, path: str, runtime: Runtime) -> str:
    try:
        descriptor = runtime.open_in_root(root, path, flags=_FILE)
    except KernelError:
        return ""
    with open(descriptor, encoding="utf-8", errors="replace") as file:
        return file.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else ""


def _give(sources: Sequence[str], owner: tuple[int, int]) -> None:
    for source in sources:
        try:
            change_owner_of(source, *owner)
        except OSError as error:
            raise WherryError(
                f"cannot change the owner of {source} (:U): {error.strerror}"
            ) from error


def _overlay_directories(points: Sequence[MountPoint], directory: str) -> list[tuple[str, str]]:
    """The (directory, source whose attributes it takes) of the points that are overlays."""
    found = []
    for position, point in enumerate(points):
        if point["Type"] == "image":
            found.append((_overlay_directory(directory, position), ""))
        elif (point["Spec"].get("Wherry") or {}).get("Overlay"):
            found.append((_overlay_directory(directory, position), point["Source"]))
    return found


def _overlay_directory(directory: str, position: int) -> str:
    return os.path.join(directory, "overlays", str(position))


def _make_overlays(overlays: Sequence[tuple[str, str]]) -> None:
    if sys.platform == "win32":
        raise Unsupported("overlays are made on Linux only")
    for directory, source in overlays:
        upper = make_dir(os.path.join(directory, "upper"), 0o755)
        make_dir(os.path.join(directory, "work"), 0o755)
        if source:
            # The upper directory is what the mount's own attributes are read from.
            found = os.stat(source)
            os.chown(upper, found.st_uid, found.st_gid)
            os.chmod(upper, stat.S_IMODE(found.st_mode))


# ---- start ----


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
            _start_mount(point, _overlay_directory(directory, position), volumes, layer_path, ids)
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
        source = _bind_source(asked)
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
    if _has_recursive_readonly():
        return ["rro"]
    if given.get("ReadOnlyForceRecursive"):
        raise Unsupported(
            "bind-recursive=readonly needs mount_setattr(2)", hint="Linux 5.12 has it"
        )
    return ["ro"]


def _has_recursive_readonly() -> bool:
    if sys.platform == "win32":
        return False
    major, _, rest = os.uname().release.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor) if minor.isdigit() else 0) >= (5, 12)


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
