"""Taking a container away, in an order that a crash at any point leaves repairable."""

from __future__ import annotations

import os

from wherry import paths
from wherry.container.copy import remove_tree
from wherry.engine import mounts, published

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.container.store import Container, ContainerStore
    from wherry.runtime import Runtime


def discard_run(container_id: str, runtime: Runtime) -> None:
    """Take away what is left of a run whose monitor was killed, even before it had recorded it.

    For who has the container's lock, and found it free: the run's processes may have held
    it when the container was looked at.
    """
    if os.path.exists(os.path.join(paths.runtime(), container_id)):
        runtime.discard(container_id)
    forget_run(container_id, runtime)


def forget_run(container_id: str, runtime: Runtime) -> None:
    """Remove what one run of a container left in RUN, and its network."""
    disconnect(container_id, runtime)
    remove_tree(paths.run_container(container_id))


def disconnect(container_id: str, runtime: Runtime) -> None:
    """Take a container's network away."""
    directory = paths.run_container(container_id)
    if os.path.exists(os.path.join(directory, "network.json")):
        from wherry.engine import networking

        networking.disconnect(directory, container_id, runtime)
        published.withdraw(container_id)


def remove(container: Container, store: ContainerStore, runtime: Runtime, *, volumes: bool) -> None:
    """Remove a container that does not run: its record first, so that it is gone for everybody."""
    anonymous = mounts.anonymous_volumes(container.record["Mounts"]) if volumes else []
    discard_run(container.id, runtime)
    store.remove_record(container)
    if (container.body.get("Wherry") or {}).get("Secrets"):
        from wherry.secrets import forget_secrets

        forget_secrets(container.id)
    discard_directory(container.directory, runtime)
    if anonymous:
        from wherry.volume.store import VolumeStore

        VolumeStore(unshared=runtime.unshared).remove_unused(anonymous, store.volume_users)
    container.event("destroy")


def discard_directory(directory: str, runtime: Runtime) -> None:
    """Remove a tree whose files may belong to a container's users."""
    try:
        remove_tree(directory)
    except PermissionError:
        runtime.unshared(lambda: remove_tree(directory))
