"""What is done once before a container can use its mounts.

Empty volumes take the image's files (copy-up), sources their new owners (:U), and
overlays (:O, images) get their directories.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from wherry.container.copy import change_owner_of, copy_attributes, copy_tree, empty_directory
from wherry.engine.mount_sources import overlay_directory
from wherry.errors import KernelError, Unsupported, WherryError
from wherry.files import Lock, make_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wherry.container.mount_points import MountPoint
    from wherry.runtime import Runtime
    from wherry.volume.store import Volume, VolumeStore

_FILE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)


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
            found.append((overlay_directory(directory, position), ""))
        elif (point["Spec"].get("Wherry") or {}).get("Overlay"):
            found.append((overlay_directory(directory, position), point["Source"]))
    return found


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
