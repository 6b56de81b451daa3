"""The containers there are, as files.

    DATA/containers/<id>/container.json   what it is: docker's create body, image, mounts
    DATA/containers/<id>/state.json       what it is doing
    DATA/containers/<id>/{upper,work,root}  its writable layer, and where the root is mounted
    DATA/names/<name> -> <id>             who has a name: a link is made by one process only

A directory without container.json is a `create` or a `rm` that was cut short, and goes
with the next `clean`. `container.json` is written last when a container is made, and
removed first when it is removed, so that what is listed is whole.

While a monitor lives, it alone writes state.json; otherwise who holds the lock of the
container's directory does.
"""

from __future__ import annotations

import os

from wherry import paths
from wherry.container.shape import RECORD, STATE
from wherry.errors import Conflict, CorruptState, NotFound, UsageError
from wherry.files import Lock, make_dir, read_json, remove_file, whole, write_json
from wherry.lean import dump_json, posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.container.spec import ProcessIdentity

_HEX = frozenset("0123456789abcdef")

# An empty file at the top of a container's own layer, which programs look for to tell that
# they are in one.
MARK = ".dockerenv"


class Container:
    """One container: its record and its state, read when they are first asked for."""

    def __init__(self, container_id: str, record: dict[str, Any]) -> None:
        self.id = container_id
        self.record = record
        self.directory = paths.container(container_id)
        self.run_directory = paths.run_container(container_id)
        self._state: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return str(self.record["Name"])

    @property
    def body(self) -> dict[str, Any]:
        """The create body, merged with the image's config."""
        body: dict[str, Any] = self.record["Body"]
        return body

    @property
    def state(self) -> dict[str, Any]:
        """The State object of docker's inspect, with keys of our own beside."""
        if self._state is None:
            try:
                state = read_json(os.path.join(self.directory, "state.json"), STATE)
            except (OSError, CorruptState):
                state = {}  # it tells of nothing that runs: it can be started, and removed
            self._state = {**initial_state(), **state}
        return self._state

    def reload(self) -> dict[str, Any]:
        """The state as it is on disk now."""
        self._state = None
        return self.state

    def write_state(self, **changes: Any) -> None:
        """Change the state, here and on disk."""
        self.state.update(changes)
        write_json(os.path.join(self.directory, "state.json"), self.state)

    def overwrite_state(self) -> None:
        """Put the state where the old one is, for want of room on the disk for another."""
        try:
            descriptor = os.open(os.path.join(self.directory, "state.json"), os.O_RDWR)
        except OSError:
            return
        try:
            content = dump_json(self.state).encode()
            # Blanks at the end of JSON mean nothing.
            posix.pwrite(descriptor, content.ljust(os.fstat(descriptor).st_size), 0)
        except OSError:
            pass
        finally:
            os.close(descriptor)

    def reload_record(self) -> None:
        """Read the record again, if it is there: `rename` and `update` change it."""
        try:
            self.record = read_record(self.id)
        except (NotFound, CorruptState):
            pass

    def write_record(self) -> None:
        """Put the record on disk."""
        write_json(os.path.join(self.directory, "container.json"), self.record, promptly=True)

    def path(self, *parts: str) -> str:
        """A path in the container's directory."""
        return os.path.join(self.directory, *parts)

    def is_build_step(self) -> bool:
        """Whether it is a step of a build, and so nobody's but that build's."""
        return bool((self.body.get("Wherry") or {}).get("Build"))

    def builder(self) -> ProcessIdentity | None:
        """The process that a step of a build is carried out by."""
        found: ProcessIdentity | None = (self.body.get("Wherry") or {}).get("Builder")
        return found

    def passes_streams(self) -> bool:
        """Whether the program has the streams of the command that starts it, by themselves."""
        config = self.body["HostConfig"].get("LogConfig") or {}
        return config.get("Type") == "passthrough"

    def event(self, action: str, **attributes: str) -> None:
        """Record an event of this container, with docker's attributes."""
        if self.is_build_step():
            return
        from wherry import events

        told = {"image": self.record["ImageName"], "name": self.name, **attributes}
        events.record("container", action, self.id, {**(self.body.get("Labels") or {}), **told})

    def volume_events(self, action: str) -> None:
        """Record an event of each volume of this container: mount or unmount."""
        from wherry import events

        for point in self.record["Mounts"]:
            if point["Type"] != "volume":
                continue
            told = {"container": self.id, "driver": "local"}
            if action == "mount":
                told["destination"] = point["Destination"]
                told["propagation"] = point.get("Propagation") or ""
                told["read/write"] = str(point["RW"]).lower()
            events.record("volume", action, point["Name"], told)

    def lock(self, *, wait: bool = True) -> Lock:
        """The lock of this container. Entering it raises NotFound once that is gone."""
        return _ContainerLock(self, wait=wait)


class _ContainerLock(Lock):
    def __init__(self, container: Container, *, wait: bool) -> None:
        super().__init__(container.directory, wait=wait, create=False)
        self._name = container.name

    def __enter__(self) -> Lock:
        try:
            return super().__enter__()
        except FileNotFoundError:
            raise NotFound(f"No such container: {self._name}") from None


def read_record(container_id: str) -> dict[str, Any]:
    """What container.json says. Raises NotFound, CorruptState."""
    path = os.path.join(paths.container(container_id), "container.json")
    hint = f"to give the container up: wherry rm -f {container_id[:12]}"
    try:
        record: dict[str, Any] = read_json(path, RECORD)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"No such container: {container_id}") from None
    except CorruptState as error:
        error.hint = hint
        raise
    return record


def initial_state() -> dict[str, Any]:
    """The state of a container that has never run."""
    return {
        "Status": "created",
        "Pid": 0,
        "ExitCode": 0,
        "Error": "",
        "OOMKilled": False,
        "StartedAt": "0001-01-01T00:00:00Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
        "RestartCount": 0,
    }


def _has_moved_on(container_id: str, name: str) -> bool:
    """Whether a `rename` that was cut short has left a container with `name` beside its own."""
    try:
        with Lock(paths.container(container_id), wait=False, create=False):
            return bool(read_record(container_id)["Name"] != name)
    except (OSError, Conflict, CorruptState, NotFound):
        return False  # somebody is at it at this moment


class ContainerStore:
    """All containers."""

    def ids(self) -> list[str]:
        """The ids of all containers, in no order."""
        try:
            return os.listdir(paths.containers())
        except FileNotFoundError:
            return []

    def load(self, container_id: str) -> Container:
        """The container with this full id. Raises NotFound or CorruptState."""
        return Container(container_id, read_record(container_id))

    def all(self, damaged: list[CorruptState] | None = None) -> list[Container]:
        """Every whole container, the newest first; what is wrong with others in `damaged`."""
        found = whole(self.ids(), self.load, damaged)
        found.sort(key=lambda container: str(container.record["Created"]), reverse=True)
        return found

    def find(self, name: str) -> Container:
        """By name, full id or unique prefix of an id.

        Raises NotFound, UsageError, and CorruptState where its record cannot be read.
        """
        return self.load(self.find_id(name))

    def find_id(self, name: str) -> str:
        """The id of the container that `find` would load. Raises NotFound, UsageError."""
        bare = name.removeprefix("/")
        if not bare or "/" in bare or bare in (".", ".."):
            raise NotFound(f"No such container: {name}")
        try:
            found = os.readlink(os.path.join(paths.container_names(), bare))
            if self._is_whole(found):
                return found
        except OSError:
            pass
        if not _HEX.issuperset(bare):
            raise NotFound(f"No such container: {name}")
        if len(bare) == 64 and self._is_whole(bare):
            return bare
        matching = [one for one in self.ids() if one.startswith(bare) and self._is_whole(one)]
        if not matching:
            raise NotFound(f"No such container: {name}")
        if len(matching) > 1:
            raise UsageError(f"Multiple IDs found with provided prefix: {name}")
        return matching[0]

    def _is_whole(self, container_id: str) -> bool:
        return os.path.exists(os.path.join(paths.container(container_id), "container.json"))

    def used_layers(self) -> set[str]:
        """The diff ids of the layers that containers stand on."""
        return {
            layer
            for container in self.all()
            for layers in (
                container.record.get("Layers") or (),
                *(point.get("Layers") or () for point in container.record.get("Mounts") or ()),
            )
            for layer in layers
        }

    def reserve_name(self, name: str, container_id: str) -> None:
        """Give `name` to a container. Raises Conflict where another has it."""
        names = make_dir(paths.container_names())
        link = os.path.join(names, name)
        while True:
            try:
                os.symlink(container_id, link)
                return
            except FileExistsError:
                pass
            try:
                holder = os.readlink(link)
            except FileNotFoundError:
                continue
            if holder == container_id:
                return
            if os.path.isdir(paths.container(holder)) and not _has_moved_on(holder, name):
                raise Conflict(
                    f'Conflict. The container name "/{name}" is already in use by container'
                    f' "{holder}". You have to remove (or rename) that container to be able to'
                    " reuse that name.",
                )
            self.release_name(name, holder)

    def release_name(self, name: str, container_id: str) -> None:
        """Take `name` from a container, if it has it."""
        link = os.path.join(paths.container_names(), name)
        try:
            if os.readlink(link) == container_id:
                os.unlink(link)
        except OSError:
            pass

    def make(self, container_id: str) -> str:
        """The directory of a new container, locked by nobody yet."""
        make_dir(paths.containers(), 0o711)
        return make_dir(paths.container(container_id), 0o711)

    def volume_users(self) -> dict[str, list[str]]:
        """The ids of the containers that use each volume."""
        users: dict[str, list[str]] = {}
        for container in self.all():
            for point in container.record.get("Mounts") or ():
                if point["Type"] == "volume":
                    users.setdefault(point["Name"], []).append(container.id)
        return users

    def remove_record(self, container: Container) -> None:
        """Make the container one that is no longer there: what is left is rubbish."""
        remove_file(container.path("container.json"))
        self.release_name(container.name, container.id)
