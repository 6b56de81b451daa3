"""Taking a container away, in an order that a crash at any point leaves repairable."""

from __future__ import annotations

import errno
import os

from wherry import paths
from wherry.files import remove_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.container.store import Container, ContainerStore
    from wherry.runtime import Runtime


def forget_run(container: Container) -> None:
    """Remove what one run of a container left in RUN."""
    remove_tree(paths.run_container(container.id))


def remove(
    container: Container, store: ContainerStore, runtime: Runtime, *, volumes: bool
) -> None:
    """Remove a container that does not run: record first, so that it is gone for everybody."""
    from wherry import events

    anonymous = [
        point["Name"]
        for point in container.record.get("Mounts") or ()
        if volumes and point.get("Type") == "volume" and point.get("Anonymous")
    ]
    store.remove_record(container)
    forget_run(container)
    discard_directory(container.directory, runtime)
    if anonymous:
        from wherry.volume.store import VolumeStore

        volume_store = VolumeStore()
        for name in anonymous:
            volume_store.remove(name, runtime.unshared, force=True)
    events.record(
        "container",
        "destroy",
        container.id,
        {
            **(container.body.get("Labels") or {}),
            "image": container.record["ImageName"],
            "name": container.name,
        },
    )


def discard_directory(directory: str, runtime: Runtime) -> None:
    """Remove a tree whose files may belong to a container's users."""
    try:
        remove_tree(directory)
    except PermissionError:
        runtime.unshared(lambda: remove_tree(directory))


def remove_tree(path: str) -> None:
    """Remove `path` and everything below it, following no link. Gone already is fine."""
    try:
        os.rmdir(path)
        return
    except FileNotFoundError:
        return
    except NotADirectoryError:
        remove_file(path)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    with os.scandir(path) as entries:
        children = list(entries)
    for entry in children:
        if entry.is_dir(follow_symlinks=False):
            remove_tree(entry.path)
        else:
            remove_file(entry.path)
    os.rmdir(path)
