"""`system reset`: everything that wherry keeps for this user, gone."""

from __future__ import annotations

import os

from wherry import paths
from wherry.container.copy import remove_tree
from wherry.engine import image_mounts, settle
from wherry.errors import CorruptState, NotFound, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.engine import Engine


def reset_everything(engine: Engine) -> None:
    """Remove all containers, then the files of all else. Raises where a container stays."""
    _remove_containers(engine)
    image_mounts.unmount_all(engine)
    engine.networks.remove_all()
    # Nobody pulls meanwhile; the lock goes with its directory.
    with engine.image_store.locked():
        _remove_files(engine)
    _remove_events()


def _remove_files(engine: Engine) -> None:
    for directory in (
        paths.images(),
        paths.layers(),
        paths.volumes(),
        paths.networks(),
        paths.secrets(),
        paths.cache(),
        paths.build_cache(),
        paths.build_contexts(),
        paths.blob_sources(),
    ):
        _remove(engine, directory)


def _remove_containers(engine: Engine) -> None:
    """In turns: one may be in the way of another, or have been started meanwhile."""
    failed: WherryError | None = None
    for _ in range(3):
        failed = None
        for container_id in engine.container_store.ids():
            try:
                engine.containers.remove(container_id, force=True, volumes=True)
            except NotFound:
                settle.discard_damaged(container_id, engine.container_store, engine.runtime)
            except WherryError as error:
                failed = error
        if failed is None:
            return
    if failed is not None:
        raise failed


def _remove(engine: Engine, directory: str) -> None:
    if not os.path.lexists(directory):
        return
    try:
        engine.runtime.unshared(lambda: remove_tree(directory))
    except OSError as error:
        raise CorruptState(f"cannot remove {directory}: {error.strerror}") from error


def _remove_events() -> None:
    log = paths.events()
    directory, name = os.path.split(log)
    for found in os.listdir(directory) if os.path.isdir(directory) else ():
        if found == name or found.startswith(f"{name}."):
            remove_tree(os.path.join(directory, found))
