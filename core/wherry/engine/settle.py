"""Putting right what a kill, a crash or a reboot left, by whoever looks next."""

from __future__ import annotations

import os

from wherry import paths
from wherry.container.copy import remove_tree
from wherry.errors import Conflict, CorruptState, NotFound, WherryError
from wherry.files import Lock
from wherry.timestamps import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.container.store import Container, ContainerStore
    from wherry.runtime import Runtime

_LIVELY = ("running", "paused", "restarting")


def settle(container: Container, store: ContainerStore, runtime: Runtime) -> bool:
    """Make a container's state true; False if it is a `--rm` container that is gone now.

    A state that tells of a running container is believed if the monitor it names is
    alive. Otherwise the container is ended with it, as if by SIGKILL.
    """
    if container.state["Status"] not in _LIVELY:
        # A monitor that was killed before it had recorded a start, or after an end.
        has_remains = _is_left_over(container) or os.path.exists(
            os.path.join(paths.runtime(), container.id)
        )
        if has_remains and not runtime.is_supervised(container):
            return _bury(container, store, runtime)
        return True
    if runtime.is_supervised(container):
        return True
    return _bury(container, store, runtime)


def _is_left_over(container: Container) -> bool:
    return bool(
        container.body["HostConfig"].get("AutoRemove")
        and container.state["Status"] == "exited"
        and not container.state.get("Kept")
    )


def _bury(container: Container, store: ContainerStore, runtime: Runtime) -> bool:
    try:
        lock = container.lock(wait=False)
        lock.__enter__()
    except (Conflict, NotFound):
        return True  # somebody is at it, or it is gone
    try:
        if not os.path.exists(container.path("container.json")):
            return False
        status = container.reload()["Status"]
        if status in _LIVELY and runtime.is_supervised(container):
            return True
        from wherry.engine import removal

        removal.discard_run(container.id, runtime)
        if status in _LIVELY:
            container.write_state(
                Status="exited",
                Pid=0,
                ExitCode=137 if status != "restarting" else container.state["ExitCode"],
                FinishedAt=now(),
                Error="the container's monitor ended before it",
            )
        if _is_left_over(container):
            removal.remove(container, store, runtime, volumes=True)
            return False
        return True
    finally:
        lock.__exit__(None, None, None)


def sweep(store: ContainerStore, runtime: Runtime) -> None:
    """Remove what is in no record: a `create` or `rm` that was cut short."""
    for container_id in store.ids():
        directory = paths.container(container_id)
        if os.path.exists(os.path.join(directory, "container.json")):
            continue
        try:
            with Lock(directory, wait=False, create=False):
                if os.path.exists(os.path.join(directory, "container.json")):
                    continue
                _clear(container_id, directory, store, runtime)
        except (Conflict, OSError):
            continue
    for container_id in {*_names_in(paths.run_container("")), *_names_in(paths.runtime())}:
        if not os.path.isdir(paths.container(container_id)):
            from wherry.engine import removal

            removal.discard_run(container_id, runtime)


def discard_damaged(container_id: str, store: ContainerStore, runtime: Runtime) -> None:
    """Remove a container whose record cannot be read, with all that is found of it.

    Its anonymous volumes stay: which they were is lost with the record.
    """
    from wherry.container.wire import Connection

    try:
        monitor = Connection.open(container_id)
        monitor.request({"op": "stop", "signal": 9, "timeout": 10, "keep": True, "quiet": True})
        monitor.close()
    except WherryError:
        pass  # there is none, or it ends at this moment
    directory = paths.container(container_id)
    with Lock(directory, create=False):
        remove_tree(os.path.join(directory, "container.json"))
        _clear(container_id, directory, store, runtime)


def _clear(container_id: str, directory: str, store: ContainerStore, runtime: Runtime) -> None:
    from wherry.engine import mounts, removal
    from wherry.volume.store import VolumeStore

    mounts.abandon(directory, VolumeStore(unshared=runtime.unshared), store.volume_users)
    runtime.discard(container_id)
    removal.discard_directory(directory, runtime)
    for name in _names_in(paths.container_names()):
        store.release_name(name, container_id)


def _names_in(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def problems(store: ContainerStore) -> list[tuple[str, str]]:
    """The containers whose record cannot be read, and what is wrong with it."""
    found = []
    for container_id in store.ids():
        try:
            store.load(container_id)
        except CorruptState as error:
            found.append((container_id, error.message))
        except WherryError:
            pass
    return found
