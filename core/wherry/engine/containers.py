"""What is done to containers: the verbs of `wherry container`."""

from __future__ import annotations

import os
import sys

from wherry import names
from wherry.container.signals import read_signal
from wherry.container.store import Container, ContainerStore
from wherry.container.wire import Connection, control
from wherry.engine import settle
from wherry.errors import (
    Conflict,
    CorruptState,
    NotFound,
    Unsupported,
    UsageError,
    WherryError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from wherry.container.request import RunRequest
    from wherry.container.spec import CreateBody, ExecConfig, HostConfig
    from wherry.engine import Engine
    from wherry.engine.launch import ContainerKeeper
    from wherry.engine.session import Session
    from wherry.engine.snapshot import CommitOptions
    from wherry.filters import Filters

DEFAULT_STOP_TIMEOUT = 10
_SHELLS = ("sh", "ash", "bash", "dash", "zsh")
_LIVELY = ("running", "paused", "restarting")
SIGKILL = 9

# A monitor that has been told to kill its container is stuck if it takes longer.
_PATIENCE = 10.0


class Containers:
    """All containers of this user."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.runtime = engine.runtime
        self.store = ContainerStore()
        self._keeper: ContainerKeeper | None = None
        # What `all` could not read.
        self.damaged: list[CorruptState] = []

    @property
    def keeper(self) -> ContainerKeeper:
        """The engine's part in a container's life."""
        if self._keeper is None:
            from wherry.engine.launch import ContainerKeeper

            self._keeper = ContainerKeeper(self.store, self.runtime)
        return self._keeper

    # ---- finding ----

    def find(self, name: str) -> Container:
        """A container by name or id, put right if a crash left it wrong."""
        container = self.store.find(name)
        settle.settle(container, self.store, self.runtime)
        return container

    def all(self) -> list[Container]:
        """Every container, newest first, each put right; the others go to `damaged`."""
        self.damaged = []
        found = [
            container
            for container in self.store.all(self.damaged)
            if settle.settle(container, self.store, self.runtime)
        ]
        settle.sweep(self.store, self.runtime)
        return self._without_abandoned(found)

    def _without_abandoned(self, found: list[Container]) -> list[Container]:
        """Containers without the steps of builds that were killed, which are removed."""
        steps = [
            container
            for container in found
            if container.is_build_step() and not self._is_carried_out(container)
        ]
        for step in steps:
            self._remove(step, force=True, volumes=True)
        return [container for container in found if container not in steps]

    def _is_carried_out(self, step: Container) -> bool:
        builder = step.builder()
        return builder is not None and self.runtime.is_running(builder)

    # ---- making ----

    def create(self, body: CreateBody, request: RunRequest) -> str:
        """Make a container; its id. Raises, and leaves nothing, where it cannot be."""
        from wherry.engine.creation import create

        return create(self.engine, body, request).id

    def replace(self, name: str) -> None:
        """Remove the container that has `name`, if there is one."""
        try:
            old = self.find(name)
        except NotFound:
            return
        self._remove(old, force=True, volumes=True)

    # ---- running ----

    def run(
        self,
        body: CreateBody,
        request: RunRequest,
        *,
        stdio: tuple[int, int, int] | None = None,
    ) -> int:
        """`wherry run`: create, start, and stay with it unless detached; the exit code.

        `stdio` takes the place of this process's streams, and leaves its signals alone.
        """
        from wherry.engine.creation import create

        container = create(self.engine, body, request)
        if request.detach:
            try:
                self._start_explained(container, {}, request.explain).close()
            except BaseException:
                self._clean_up_failed(container)
                raise
            print(container.id)
            _hint_of_shell(container)
            return 0
        return self.stay(container, request, stdio=stdio)

    def stay(
        self,
        container: Container,
        request: RunRequest,
        *,
        stdio: tuple[int, int, int] | None = None,
    ) -> int:
        """Start a new container, and stay with it; its exit code. `stdio` is as in `run`."""
        from wherry.engine.session import Session

        config = container.body
        session = Session(
            container,
            stdin=bool(config.get("AttachStdin")),
            stdout=bool(config.get("AttachStdout")),
            stderr=bool(config.get("AttachStderr")),
            detach_keys=request.detach_keys,
            sig_proxy=request.sig_proxy,
            stdio=stdio or (0, 1, 2),
            signals_too=stdio is None,
        )
        try:
            return session.run(
                lambda options: self._start_explained(container, options, request.explain)
            )
        except (OSError, WherryError):
            self._clean_up_failed(container)
            raise

    def _start_explained(
        self, container: Container, options: dict[str, Any], form: str
    ) -> Connection:
        """Start, and say what has been made if `form` ("text", "json") asks for it."""
        preserve = (container.body.get("Wherry") or {}).get("PreserveFds", 0)
        options = {**options, "explain": bool(form), "preserve": preserve}
        connection = self._start(container, options)
        if form:
            from wherry.engine.explain import show

            show(container, self.runtime, connection, form)
        return connection

    def _clean_up_failed(self, container: Container) -> None:
        """A `--rm` container that could not start is gone before its error is shown."""
        if container.body["HostConfig"].get("AutoRemove"):
            from wherry.engine import removal

            try:
                with container.lock():
                    removal.remove(container, self.store, self.runtime, volumes=True)
            except (OSError, WherryError):
                pass

    def attach(
        self, name: str, *, stdin: bool = True, detach_keys: str = "", sig_proxy: bool = True
    ) -> int:
        """Join a running container's streams; its exit code, or 0 when detached from."""
        container = self.find(name)
        status = container.state["Status"]
        if status == "paused":
            raise Conflict(
                "You cannot attach to a paused container, unpause it first",
            )
        if status == "restarting":
            raise Conflict("You cannot attach to a restarting container, wait until it is running")
        if status != "running":
            raise Conflict("You cannot attach to a stopped container, start it first")
        session = self._session(container, stdin, detach_keys, sig_proxy)
        return session.run(lambda options: self._join(container, options))

    def start_attached(self, name: str, *, stdin: bool = False, detach_keys: str = "") -> int:
        """Start a container and stay with it; its exit code."""
        container = self.find(name)
        if container.state["Status"] in ("running", "restarting"):
            return self.attach(name, stdin=stdin, detach_keys=detach_keys)
        session = self._session(container, stdin, detach_keys, sig_proxy=True)
        return session.run(lambda options: self._start(container, options))

    def _session(
        self, container: Container, stdin: bool, detach_keys: str, sig_proxy: bool
    ) -> Session:
        from wherry.engine.session import Session

        return Session(
            container,
            stdin=stdin and bool(container.body.get("OpenStdin")),
            stdout=True,
            stderr=True,
            detach_keys=detach_keys,
            sig_proxy=sig_proxy,
        )

    def _join(self, container: Container, options: dict[str, Any]) -> Connection:
        connection = Connection.open(container.id)
        connection.send(control({"op": "attach", **options}))
        connection.expect("attached")
        return connection

    def exec(
        self,
        name: str,
        config: ExecConfig,
        *,
        detach: bool = False,
        detach_keys: str = "",
        stdio: tuple[int, int, int] | None = None,
    ) -> int:
        """Run one more process in a running container; its exit code."""
        from wherry.engine.execution import Execution

        container = self.find(name)
        status = container.state["Status"]
        if status == "paused":
            raise Conflict(f"Container {name} is paused, unpause the container before exec")
        if status != "running":
            raise Conflict(f"container {container.id} is not running")
        execution = Execution(
            self.runtime, container, config, detach=detach, detach_keys=detach_keys
        )
        return execution.run(stdio)

    def start(self, name: str) -> None:
        """Start a container that does not run; nothing happens to one that does."""
        container = self.find(name)
        if container.state["Status"] not in ("running", "restarting"):
            self._start_once(container)

    def _start_once(self, container: Container) -> None:
        """Start a container; somebody else who does so at the same moment serves as well."""
        try:
            self._start(container).close()
        except Conflict:
            if container.state["Status"] not in ("running", "restarting"):
                raise

    def _start(self, container: Container, attach: dict[str, Any] | None = None) -> Connection:
        """Start, and a connection to the monitor; `attach` says which streams it carries."""
        from wherry.engine import removal

        with container.lock() as lock:
            status = container.reload()["Status"]
            container.reload_record()
            if status == "paused":
                raise Conflict(
                    f"cannot start a paused container, try unpause instead: {container.name}"
                )
            if status in ("running", "restarting"):
                raise Conflict(f"container {container.name} is running already")
            if not os.path.exists(container.path("container.json")):
                raise NotFound(f"No such container: {container.name}")
            if container.passes_streams():
                _refuse_terminals()
            removal.discard_run(container.id, self.runtime)
            spec = self.keeper.prepare(container)
            connection = self.runtime.launch(container, spec, self.keeper, lock, attach)
            connection.spec = connection.greeting.get("spec") or spec
            return connection

    # ---- ending ----

    def stop(self, name: str, timeout: int | None = None, signal: str = "") -> None:
        """Ask a container to end, and make it end after `timeout` seconds (-1: never)."""
        container = self.find(name)
        if container.state["Status"] not in _LIVELY:
            return
        wanted = signal or container.body.get("StopSignal") or "SIGTERM"
        pid = container.state["Pid"]
        number = read_signal(wanted)
        is_deaf = (
            pid and timeout != 0 and number != SIGKILL and not self.runtime.catches(pid, number)
        )
        self._stop(container, timeout, signal)
        if is_deaf and self._was_killed(container):
            print(
                f"wherry: {container.name} was killed: as process 1 its program hears no {wanted},"
                " which it has no handler for; `wherry run --init` gives it an init",
                file=sys.stderr,
            )

    def _was_killed(self, container: Container) -> bool:
        try:
            return bool(container.reload()["ExitCode"] == 128 + SIGKILL)
        except NotFound:
            return False  # --rm

    def restart(self, name: str, timeout: int | None = None, signal: str = "") -> None:
        """Stop and start again. A `--rm` container stays."""
        container = self.find(name)
        if container.state["Status"] in _LIVELY:
            self._stop(container, timeout, signal, keep=True)
        self._start_once(container)
        container.event("restart")

    def _stop(
        self, container: Container, timeout: int | None, signal: str, **options: bool
    ) -> None:
        """Have the monitor stop a container; one that ends of itself meanwhile has stopped."""
        body = container.body
        if timeout is None:
            given = body.get("StopTimeout")
            timeout = DEFAULT_STOP_TIMEOUT if given is None else given
        number = read_signal(signal or body.get("StopSignal") or "SIGTERM")
        message = {"op": "stop", "signal": number, "timeout": timeout, **options}
        try:
            self.ask(container, message)
        except WherryError:
            if self._still_runs(container):
                raise

    def _still_runs(self, container: Container) -> bool:
        """Whether it runs once those who are ending it at this moment are done."""
        try:
            with container.lock():
                container.reload()
        except NotFound:
            return False
        settle.settle(container, self.store, self.runtime)
        return container.state["Status"] in _LIVELY

    def kill(self, name: str, signal: str = "KILL") -> None:
        """Send a signal to a container's first process."""
        number = read_signal(signal)
        container = self.find(name)
        if container.state["Status"] not in ("running", "paused"):
            raise Conflict(
                f"cannot kill container: {name}: container {container.id[:12]} is not running"
            )
        final = number == SIGKILL or number == read_signal(
            container.body.get("StopSignal") or "SIGTERM"
        )
        self.ask(container, {"op": "kill", "signal": number, "final": final})

    def pause(self, name: str) -> None:
        """Freeze every process of a container."""
        container = self.find(name)
        status = container.state["Status"]
        if status == "paused":
            raise Conflict(f"container {name} is already paused")
        if status != "running":
            raise Conflict(f"container {name} is not running")
        self.ask(container, {"op": "pause"})

    def unpause(self, name: str) -> None:
        """Let a paused container go on."""
        container = self.find(name)
        if container.state["Status"] != "paused":
            raise Conflict(f"container {name} is not paused")
        self.ask(container, {"op": "unpause"})

    def wait(self, name: str) -> int:
        """Wait until a container is not running; its exit code."""
        container = self.find(name)
        if container.state["Status"] in ("running", "paused", "restarting"):
            try:
                connection = Connection.open(container.id)
            except Conflict:
                pass  # it ended just now
            else:
                try:
                    return int(connection.expect("exit")["code"])
                except WherryError:
                    pass  # its monitor was killed: what it leaves is settled below
                finally:
                    connection.close()
            container.reload()
            if not settle.settle(container, self.store, self.runtime):
                return 137
        return int(container.state["ExitCode"])

    def check_health(self, name: str) -> bool:
        """Run a container's health check now; whether it is healthy."""
        container = self.find(name)
        check = container.body.get("Healthcheck") or {}
        if not check.get("Test") or check["Test"][0] == "NONE":
            raise UsageError(f"container {container.name} has no defined healthcheck")
        if container.state["Status"] != "running":
            raise Conflict(f"container {container.name} is not running")
        return bool(self.ask(container, {"op": "check"})["code"] == 0)

    def ask(
        self, container: Container, message: dict[str, Any], patience: float | None = None
    ) -> dict[str, Any]:
        """Have the monitor do something; a container that ends meanwhile is a Conflict."""
        connection = Connection.open(container.id)
        try:
            return connection.request(message, patience=patience)
        finally:
            connection.close()

    # ---- removing and renaming ----

    def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container; `force` ends one that runs, and takes a missing one for removed."""
        try:
            container = self.find(name)
        except CorruptState:
            if not force:
                raise
            settle.discard_damaged(self.store.find_id(name), self.store, self.runtime)
            return
        self._remove(container, force=force, volumes=volumes)

    def _remove(self, container: Container, *, force: bool, volumes: bool) -> None:
        from wherry.engine import removal

        status = container.state["Status"]
        if status in _LIVELY and not force:
            raise Conflict(
                f"cannot remove container {container.name!r}: container is {status}:"
                " stop the container before removing or force remove"
            )
        while True:
            if container.state["Status"] in _LIVELY:
                self._end(container)
            try:
                with container.lock():
                    if not os.path.exists(container.path("container.json")):
                        return  # somebody else did it
                    if container.reload()["Status"] not in _LIVELY:
                        container.reload_record()
                        removal.remove(container, self.store, self.runtime, volumes=volumes)
                        return
            except NotFound:
                return
            # Somebody has started it meanwhile.
            if not force:
                raise Conflict(f"cannot remove container {container.name!r}: it has been started")

    def _end(self, container: Container) -> None:
        """Have a container end at once, with its monitor if that does not see to it."""
        message = {"op": "stop", "signal": SIGKILL, "timeout": 10, "keep": True, "quiet": True}
        try:
            self.ask(container, message, patience=_PATIENCE)
        except WherryError:
            if self._still_runs(container):
                self.runtime.end_monitor(container)
                settle.settle(container, self.store, self.runtime)

    def rename(self, name: str, new: str) -> None:
        """Give a container another name."""
        from wherry.container.networks import networks_of

        container = self.find(name)
        bare = names.check_name(new)
        if bare == container.name:
            raise UsageError("Renaming a container with the same name as its current name")
        with container.lock():
            container.reload_record()
            self.store.reserve_name(bare, container.id)
            old = container.name
            container.record["Name"] = bare
            try:
                container.write_record()
            except WherryError:
                self.store.release_name(bare, container.id)
                raise
            self.store.release_name(old, container.id)
        container.event("rename", oldName=f"/{old}")
        if container.state["Status"] in ("running", "paused") and networks_of(container):
            try:
                self.ask(container, {"op": "network", "do": "rename", "old": old})
            except (NotFound, Conflict, Unsupported):
                pass  # it ends at this moment, or nobody knows its name

    # ---- asking ----

    def summaries(
        self,
        *,
        all: bool = False,  # noqa: A002
        filters: Filters | None = None,
        limit: int = 0,
        size: bool = False,
    ) -> list[dict[str, Any]]:
        """Containers in the form of /containers/json, the newest first."""
        from wherry.engine import query

        return query.list_containers(self, all=all, filters=filters, limit=limit, size=size)

    def inspect(self, name: str, *, size: bool = False) -> dict[str, Any]:
        """docker's inspect of a container."""
        from wherry.engine import query

        return query.inspect_container(self, name, size=size)

    def top(self, name: str, options: Sequence[str]) -> tuple[list[str], list[list[str]]]:
        """A container's processes as ps(1) shows them: titles and rows."""
        from wherry.engine import query

        return query.top(self, name, options)

    def stats(self, name: str) -> dict[str, Any]:
        """What a container uses at this moment, in the form of the API's /stats."""
        from wherry.engine import query

        return query.stats(self, name)

    def logs(
        self,
        name: str,
        *,
        follow: bool = False,
        since: int = 0,
        until: int = 0,
        tail: int = -1,
    ) -> Iterator[dict[str, Any]]:
        """The records of a container's log, and with `follow` those to come."""
        from wherry.engine import query

        return query.logs(self, name, follow=follow, since=since, until=until, tail=tail)

    def changes(self, name: str) -> list[tuple[int, str]]:
        """What a container has changed: (0 modified, 1 added or 2 deleted, path)."""
        from wherry.engine import snapshot

        return snapshot.changes(self.engine, name)

    def commit(self, name: str, repository: str, options: CommitOptions) -> str:
        """Make an image of a container as it is now; its id."""
        from wherry.engine import snapshot

        return snapshot.commit(self.engine, name, repository, options)

    def update(self, name: str, changes: HostConfig) -> None:
        """Give a container other limits, or another restart policy."""
        from wherry.engine import query

        query.update(self, name, changes)

    def prune(self, filters: Filters) -> dict[str, Any]:
        """Remove the containers that do not run."""
        from wherry.engine import query

        return query.prune(self, filters)

    # ---- for others ----

    def image_users(self) -> list[tuple[str, str, bool]]:
        """(container id, image id, whether it runs) of every container, for `rmi`."""
        return [
            (one.id, one.record["Image"], one.state["Status"] in ("running", "paused"))
            for one in self.all()
        ]


def _refuse_terminals() -> None:
    """A program could type into a terminal that it was given: the host's is not for it."""
    if any(map(os.isatty, range(3))):
        raise UsageError(
            "the log driver passthrough is not for terminals",
            hint="redirect the command's input and output, or leave --log-driver out",
        )


def _hint_of_shell(container: Container) -> None:
    """Say why a container that is but an image's shell ends at once."""
    body = container.body
    command = body.get("Cmd") or []
    if (
        len(command) == 1
        and os.path.basename(command[0]) in _SHELLS
        and not (body.get("Entrypoint") or body.get("Tty") or body.get("OpenStdin"))
    ):
        print(
            f"wherry: {command[0]} without input ends at once: add -it, or say a command",
            file=sys.stderr,
        )
