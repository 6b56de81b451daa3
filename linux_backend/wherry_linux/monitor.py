"""The monitor: one process per running container, child of nobody's terminal.

It owns the container's streams, writes its log, runs its health checks, applies its
restart policy, records its end, and removes it with `--rm`. It is forked by the command
that starts the container and outlives it; the container does not outlive the monitor.
Once the container has settled the monitor goes on in a fresh interpreter
(wherry_linux.handover), which holds none of what the command had loaded.

Commands talk to it in frames (wherry.container.wire) over RUN/containers/<id>/attach.sock.
What they may ask, as CONTROL messages:

    {"op": "attach", "stdin", "stdout", "stderr"}   send me these streams; mine is stdin
    {"op": "eof"}                                   my stdin ends
    {"op": "resize", "rows", "columns"}
    {"op": "kill", "signal", "final"}               answered by "done"; after a `final` one
                                                    no restart policy applies
    {"op": "stop", "signal", "timeout", "keep",     answered by "done" once it has ended;
     "quiet"}                                       `keep` is stronger than --rm, `quiet`
                                                    leaves out the event "stop"
    {"op": "pause"}, {"op": "unpause"}              answered by "done"
    {"op": "network", "do": "connect", …}           answered by "done" (wherry.engine.networking)
    {"op": "check"}                                 answered by "done" with the "code" that the
                                                    health check ended with

and what it says: {"event": "started", "pid", "namespaces"}, {"event": "attached", "pid"},
{"event": "exit", "code"}, {"event": "done"}, {"error": …}.
"""

from __future__ import annotations

import os
import select
import time

from wherry import paths
from wherry.container.signals import read_signal
from wherry.container.wire import SOCKET, control
from wherry.errors import Conflict, NotFound, NoUserNamespace, WherryError, as_ours, to_json
from wherry.files import remove_file
from wherry.lean import signals, sockets
from wherry.timestamps import now
from wherry_linux import console
from wherry_linux.cgroups import Cgroup, own_path
from wherry_linux.clients import Client
from wherry_linux.out_of_memory import MemoryWatch
from wherry_linux.processes import boot_id, start_time
from wherry_linux.restarts import Restarts
from wherry_linux.streams import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.container.store import Container
    from wherry.oci.runtime_spec import Spec
    from wherry.runtime import Keeper
    from wherry_linux.creation import Created
    from wherry_linux.network.services import Services
    from wherry_linux.notify import Notifier
    from wherry_linux.runtime import Runtime

# A container that has run for so long is there to stay.
_SETTLED = 1.0


class Monitor(Streams):
    """The monitor of one container, from its start to its last end."""

    def __init__(
        self, container: Container, runtime: Runtime | None, keeper: Keeper | None
    ) -> None:
        """Without `runtime` and `keeper` they are loaded when they are needed."""
        super().__init__(container)
        self._runtime = runtime
        self._keeper = keeper
        self.listener: Any = None
        # The streams of the command that started the container, which it uses itself.
        self.passed: list[int] = []
        self.pid = 0
        self.pidfd = -1
        self.cgroup = ""
        self.memory = MemoryWatch(self, self._killed_for_memory)
        self.stopping = False
        self.keep = False
        self.wants_numbers = False
        # Descriptors 3, 4, … of the command that the container's first run gets.
        self.preserve = 0
        self.numbers: dict[str, str] = {}
        # Of a start that had to do without a user namespace: its spec, and why.
        self.fallback: dict[str, Any] = {}
        self.restart_once = False
        self.stop_waiters: list[Client] = []
        self.is_quiet = False
        self.restarts = Restarts()
        self.started_at = 0.0
        self.health: Any = None
        # Tells NOTIFY_SOCKET, where it is to be told.
        self.notifier: Notifier | None = None
        self.services: Services | None = None
        self.done = False

    @property
    def runtime(self) -> Runtime:
        if self._runtime is None:
            self._load()
        assert self._runtime is not None
        return self._runtime

    @property
    def keeper(self) -> Keeper:
        if self._keeper is None:
            self._load()
        assert self._keeper is not None
        return self._keeper

    def _load(self) -> None:
        from wherry.container.store import ContainerStore
        from wherry.engine.launch import ContainerKeeper
        from wherry_linux.backend import LinuxRuntime

        runtime = LinuxRuntime()
        self._runtime = runtime.oci
        self._keeper = ContainerKeeper(ContainerStore(), runtime)

    # ---- starting ----

    def run(self, first: Any, spec: Spec, lock: int, attach: Mapping[str, Any]) -> None:
        """Start the container and stay with it until it is over. Called in a forked child.

        `first` is a connected socket to the command that waits for the start, which gets
        the streams that `attach` names; `lock` the descriptor of the container's lock,
        given up once the start is recorded.
        """
        from wherry_linux import detached

        preserve = attach.get("preserve", 0)
        if self.container.passes_streams():
            self.passed = detached.keep_streams(above=2 + preserve)
        kept = {first.fileno(), lock, self.poll.fileno(), *range(3, 3 + preserve), *self.passed}
        detached.detach(kept)
        self.prepare()
        client = Client(self, first)
        client.attach(attach)
        client.is_first = bool(client.wants)
        if client.is_attached():
            self.container.event("attach")
        self.wants_numbers = bool(attach.get("explain"))
        self.preserve = preserve
        self.clients.append(client)
        try:
            self.listen(detached.listen_in(self.container.run_directory))
            self.open_log()
            self.open_notifier()
            self._start(spec)
            greeting = {"event": "started", "pid": self.pid, "namespaces": self.numbers}
            if self.wants_numbers:
                greeting.update(self.fallback)
        except BaseException as error:
            trace()
            self._could_not_start(error)
            self.loop()
            return
        finally:
            os.close(lock)
        client.send(control(greeting))
        self.loop()

    def listen(self, listener: Any) -> None:
        """Let commands connect to `listener`."""
        self.listener = listener
        self.watch(listener.fileno(), select.EPOLLIN, self._accept)

    def open_notifier(self) -> None:
        """Get ready to tell NOTIFY_SOCKET of the container, if that is asked for."""
        if not (self.container.body.get("Wherry") or {}).get("SdNotify"):
            return
        from wherry.container.notify import wanted

        if wanted(self.container.body):
            from wherry_linux.notify import Notifier

            self.notifier = Notifier(self)

    def _start(self, spec: Spec) -> None:
        """Create the container, connect it, and let it run."""
        body = self.container.body
        if self.notifier is not None:
            self.notifier.listen()
        stdio: tuple[int, int, int] | None = None
        ours: tuple[int, int, int] | None = None
        if self.passed:
            stdin, stdout, stderr = map(os.dup, self.passed)
            ours, stdio = (-1, -1, -1), (stdin, stdout, stderr)
        elif not body.get("Tty"):
            from wherry_linux.detached import make_pipes

            ours, stdio = make_pipes(bool(body.get("OpenStdin")))
        try:
            try:
                created = self._create(spec, stdio)
            except NoUserNamespace as error:
                spec = self.keeper.prepare(self.container, error)
                self.fallback = {"spec": spec, "refusal": error.message}
                created = self._create(spec, stdio)
        except BaseException:
            for descriptor in ours or ():
                _close(descriptor)
            raise
        finally:
            for descriptor in stdio or ():
                os.close(descriptor)
        try:
            if self.wants_numbers:
                from wherry_linux import namespaces

                self.numbers = namespaces.numbers(created.pid)
            self.serve(self.keeper.connect(self.container, created.pid))
            self.runtime.start(self.container.id)
            created.started()
            self.cgroup = self.runtime.record(self.container.id)["cgroup"] or ""
        except BaseException:
            for descriptor in (*(ours or ()), created.terminal):
                _close(descriptor)
            os.kill(created.pid, 9)
            os.waitpid(created.pid, 0)
            self.runtime.delete(self.container.id, force=True)
            raise
        for descriptor in range(3, 3 + self.preserve):
            os.close(descriptor)
        self.preserve = 0
        self._adopt(created, ours)

    def _create(self, spec: Spec, stdio: tuple[int, int, int] | None) -> Created:
        return self.runtime.create(
            self.container.id,
            self.container.directory,
            spec=spec,
            stdio=stdio,
            preserve=self.preserve,
            supervise=True,
        )

    def serve(self, services: list[dict[str, Any]]) -> None:
        """Serve what the container's network needs: ports, names."""
        if not services:
            return
        if self.services is None:
            from wherry_linux.network.services import Services

            self.services = Services(self)
        self.services.start(services)

    def _adopt(self, created: Created, ours: tuple[int, int, int] | None) -> None:
        self.pid = created.pid
        self.pidfd = os.pidfd_open(created.pid)
        if ours is None:
            self.terminal = self.stdin = created.terminal
            self.outputs = {created.terminal: "stdout"}
        else:
            self.stdin = ours[0]
            named = {ours[1]: "stdout", ours[2]: "stderr"}
            self.outputs = {each: name for each, name in named.items() if each >= 0}
        for descriptor in (*self.outputs, self.stdin):
            if descriptor >= 0:
                os.set_blocking(descriptor, False)
        self.stdin_queue.clear()
        self.stdin_ended = False
        self.started_at = time.monotonic()
        self.resume()
        self.write_state(
            Status="running",
            Pid=self.pid,
            StartTime=start_time(self.pid),
            BootId=boot_id(),
            MonitorPid=os.getpid(),
            MonitorStart=start_time(os.getpid()),
            ExitCode=0,
            Error="",
            OOMKilled=self.memory.kills > 0,
            StartedAt=now(),
            RestartCount=self.restarts.count,
            ManuallyStopped=False,
        )
        self.container.volume_events("mount")
        self.container.event("start")
        if self.notifier is not None:
            self.notifier.started()
        self._start_health()
        self.after(_SETTLED, self._settle)

    def resume(self) -> None:
        """Watch the container and its streams."""
        self.watch(self.pidfd, select.EPOLLIN, self._exited)
        self.memory.begin(self.cgroup)
        if timeout := (self.container.body.get("Wherry") or {}).get("Timeout"):
            self.after(self.started_at + timeout - time.monotonic(), self._kill_hard)
        self.resume_outputs()
        if self.stdin_queue:
            self._wait_for_stdin()

    def _killed_for_memory(self) -> None:
        self.write_state(OOMKilled=True)
        self.container.event("oom")

    def _start_health(self) -> None:
        check = self.container.body.get("Healthcheck")
        if check and check.get("Test") and check["Test"][0] != "NONE":
            from wherry_linux.health import HealthChecks

            self.health = HealthChecks(self, check)
            self.health.begin()

    def _settle(self) -> None:
        """Go on in a fresh interpreter, at a moment when nothing is half done."""
        if not self.pid or self.stopping:
            return
        if self.health is not None and self.health.is_checking():
            self.after(_SETTLED, self._settle)
            return
        if self.services is not None and not self.services.is_idle():
            self.after(_SETTLED, self._settle)
            return
        from wherry_linux.handover import hand_over

        try:
            hand_over(self)  # returns only if it cannot be
        except OSError:
            trace()  # no descriptor or no memory to spare: this interpreter will do

    def _could_not_start(self, failure: BaseException) -> None:
        error = as_ours(failure)
        code = error.exit_code if error.exit_code is not None else 128
        self._release()
        self.write_state(
            Status="created", Pid=0, ExitCode=code, Error=error.message, FinishedAt=now()
        )
        self._stop_listening()
        if self.container.body["HostConfig"].get("AutoRemove"):
            self._remove()
        else:
            self.keeper.ended(self.container)
        self._say_goodbye({"error": to_json(error)})

    # ---- the loop ----

    def loop(self) -> None:
        """Serve streams, clients and timers until all is over."""
        while not self.done or self.clients:
            self.turn()

    def awaits(self, pid: int) -> bool:
        return pid == self.pid or bool(self.health and pid == self.health.child)

    def write_state(self, **changes: Any) -> None:
        """Change the container's state. A full disk must not end what we look after."""
        try:
            self.container.write_state(**changes)
        except WherryError:
            self.container.overwrite_state()

    # ---- clients ----

    def _accept(self, _mask: int) -> None:
        try:
            descriptor, _ = self.listener._accept()
        except OSError:
            return
        self.clients.append(Client(self, sockets.socket(fileno=descriptor)))

    def handle(self, client: Client, message: dict[str, Any]) -> None:
        """Carry out what a client asks for."""
        operation = message.get("op")
        if operation == "attach":
            client.attach(message)
            if client.is_attached():
                self.container.event("attach")
            client.send(control({"event": "attached", "pid": self.pid}))
        elif operation == "eof":
            self.end_stdin()
        elif operation == "resize":
            if self.terminal >= 0:
                rows, columns = message["rows"], message["columns"]
                console.set_size(self.terminal, rows, columns)
                self.container.event("resize", height=str(rows), width=str(columns))
        else:
            try:
                self._carry_out(client, operation, message)
            except (OSError, WherryError) as error:
                if not isinstance(error, WherryError):
                    error = WherryError(f"cannot {operation} the container: {error.strerror}")
                client.send(control({"error": to_json(error)}))

    def _carry_out(self, client: Client, operation: object, message: dict[str, Any]) -> None:
        if operation == "stop":
            self._stop(client, message)
            return
        if operation == "check":
            if self.health is None:
                raise Conflict(f"container {self.container.name} does not run its health check")
            self.health.check_for(client)
            return
        if operation == "kill":
            self._kill(message["signal"], message.get("final", False))
        elif operation == "network":
            if not self.pid:
                raise Conflict(f"container {self.container.name} is not running")
            started, ended = self.keeper.change_network(self.container, self.pid, message)
            for key in ended:
                if self.services is not None:
                    self.services.stop(key)
            self.serve(started)
        elif operation in ("pause", "unpause"):
            self._pause(paused=operation == "pause")
        else:
            raise WherryError(f"the monitor does not know {operation!r}")
        client.send(control({"event": "done"}))

    def _pause(self, *, paused: bool) -> None:
        if paused:
            self.runtime.pause(self.container.id)
        else:
            self.runtime.resume(self.container.id)
        self.write_state(Status="paused" if paused else "running")
        self.container.event("pause" if paused else "unpause")

    def _kill(self, number: int, final: bool) -> None:
        if not self.pid:
            raise Conflict(f"container {self.container.id[:12]} is not running")
        if final:
            self.stopping = True
        signals.pidfd_send_signal(self.pidfd, number)
        if number == signals.SIGKILL:
            self._thaw()
        self.container.event("kill", signal=str(number))

    def _thaw(self) -> None:
        """A frozen container hears of a signal only once it is let go."""
        if self.cgroup and Cgroup(self.cgroup).is_frozen():
            Cgroup(self.cgroup).freeze(frozen=False)
            self.write_state(Status="running")

    def _stop(self, client: Client, message: dict[str, Any]) -> None:
        number, timeout = int(message["signal"]), float(message["timeout"])
        self.stopping = True
        self.stop_waiters.append(client)
        self.keep = self.keep or bool(message.get("keep"))
        self.is_quiet = bool(message.get("quiet"))
        self.write_state(ManuallyStopped=True, Kept=self.keep)
        if not self.pid:
            # Between two runs: the next one does not come.
            self.cancel(self._restart)
            self._over()
            return
        signals.pidfd_send_signal(self.pidfd, number)
        self._thaw()
        self.container.event("kill", signal=str(number))
        if timeout >= 0:
            self.after(timeout, self._kill_hard)

    def _kill_hard(self) -> None:
        if self.pid:
            self._kill(signals.SIGKILL, final=True)

    def end_unhealthy(self, wanted: str) -> None:
        """`--health-on-failure`: kill, stop or restart."""
        if not self.pid:
            return
        if wanted == "restart":
            self.restart_once = True
        elif wanted == "stop":
            self.stopping = True
            signals.pidfd_send_signal(
                self.pidfd, read_signal(self.container.body.get("StopSignal") or "SIGTERM")
            )
            self.after(10, self._kill_hard)
            return
        signals.pidfd_send_signal(self.pidfd, signals.SIGKILL)

    # ---- the end ----

    def _exited(self, _mask: int) -> None:
        code = self.exit_code_of(self.pid)
        code = 128 - code if code < 0 else code
        self.unwatch(self.pidfd)
        os.close(self.pidfd)
        self.pid, self.pidfd = 0, -1
        self.cancel(self._settle)
        self.cancel(self._kill_hard)
        if self.health is not None:
            self.health.end()
            self.health = None
        self._drain()
        for log in (self.log, self.service):
            if log is not None:
                log.finish()
        ended = {
            "Pid": 0,
            "ExitCode": code,
            "FinishedAt": now(),
        }
        self.memory.end()
        self._release()
        delay = self._delay(code)
        if delay is None:
            self._over(ended)
            return
        self.write_state(Status="restarting", **ended)
        self._tell_of_end()
        self.after(delay, self._restart)

    def _delay(self, code: int) -> float | None:
        """Seconds until the next run; None if there is none."""
        lasted = time.monotonic() - self.started_at
        once, self.restart_once = self.restart_once, False
        if self.stopping or self._ends_with_its_scope():
            return None
        if once:
            return self.restarts.again(lasted)
        # `update` and `rename` change the record.
        self.container.reload_record()
        return self.restarts.next(
            self.container.body["HostConfig"].get("RestartPolicy"), code, lasted
        )

    def _ends_with_its_scope(self) -> bool:
        """Whether systemd has told all of the scope to end, this process like the container's."""
        return self.is_told_to_end and own_path().endswith(".scope/monitor")

    def _tell_of_end(self) -> None:
        state = self.container.state
        self.container.event(
            "die",
            exitCode=str(state["ExitCode"]),
            execDuration=str(int(time.monotonic() - self.started_at)),
        )
        self.container.volume_events("unmount")

    def _drain(self) -> None:
        """Pass on what the container wrote before it ended."""
        deadline = time.monotonic() + 1
        while self.outputs:
            came = [self._read_output(descriptor) for descriptor in list(self.outputs)]
            if not any(came):
                if not self.outputs:
                    break
                # Somebody outside still has the pipe: a process that shares the host's pids.
                poll = select.poll()
                for descriptor in self.outputs:
                    poll.register(descriptor, select.POLLIN)
                if not poll.poll(50):
                    break
            elif time.monotonic() > deadline:
                break  # somebody outside goes on writing: the container's own came first

    def _release(self) -> None:
        """Give back what one run had: streams, namespaces, mounts, network."""
        for descriptor in {*self.outputs, self.stdin, self.terminal} - {-1}:
            self.unwatch(descriptor)
            os.close(descriptor)
        self.outputs = {}
        self.stdin = self.terminal = -1
        self.stdin_queue.clear()
        if self.services is not None:
            self.services.stop()
        try:
            self.runtime.delete(self.container.id, force=True)
            self.keeper.disconnect(self.container)
        except (OSError, WherryError):
            trace()  # the next command tries again

    def _restart(self) -> None:
        if self._ends_with_its_scope():
            self._over()
            return
        try:
            self._start(self.keeper.prepare(self.container))
        except (OSError, WherryError) as failure:
            error = as_ours(failure)
            code = error.exit_code or 128
            self.started_at = time.monotonic()
            ended = {"Pid": 0, "ExitCode": code, "Error": error.message, "FinishedAt": now()}
            delay = self._delay(code)
            if delay is None:
                self._over(ended)
                return
            self.write_state(**ended)
            self.after(delay, self._restart)

    def _over(self, ended: Mapping[str, Any] | None = None) -> None:
        """The container has ended for good; `ended` is what its last run left to record."""
        try:
            with self.container.lock():
                self._record_end(ended)
        except NotFound:
            pass  # it was taken away under our hands
        done = control({"event": "done"})
        for client in self.stop_waiters:
            client.send(done)
        self._say_goodbye({"event": "exit", "code": self.container.state["ExitCode"]})

    def _record_end(self, ended: Mapping[str, Any] | None) -> None:
        """With the container's lock: from here on it can be started by somebody else."""
        self.container.reload_record()
        self.write_state(Status="exited", **(ended or {}))
        if ended is not None:
            self._tell_of_end()
        if self.stop_waiters and not self.is_quiet:
            self.container.event("stop")
        self._stop_listening()
        if self.container.body["HostConfig"].get("AutoRemove") and not self.keep:
            self._remove()
        else:
            self.keeper.ended(self.container)

    def _remove(self) -> None:
        try:
            self.keeper.remove(self.container)
        except (OSError, WherryError):
            trace()  # the next command tries again

    def _stop_listening(self) -> None:
        """Nobody finds us any more; who is connected stays."""
        if self.listener is not None:
            self.unwatch(self.listener.fileno())
            self.listener.close()
            self.listener = None
            remove_file(os.path.join(self.container.run_directory, SOCKET))

    def _say_goodbye(self, message: dict[str, Any]) -> None:
        """Tell everybody; we stay until they have read it."""
        self.done = True
        for client in list(self.clients):
            client.leave(control(message))


def trace() -> None:
    """With WHERRY_DEBUG, where the exception at hand comes from: stderr is /dev/null here."""
    if os.environ.get("WHERRY_DEBUG"):
        import traceback

        with open(f"{paths.run()}/monitor.log", "a") as file:
            traceback.print_exc(file=file)


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)
