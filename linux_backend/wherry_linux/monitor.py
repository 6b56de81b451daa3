"""The monitor: one process per running container, child of nobody's terminal.

It owns the container's streams, writes its log, runs its health checks, applies its
restart policy, records its end, and removes it with `--rm`. It is forked by the command
that starts the container and outlives it; the container does not outlive the monitor.

Commands talk to it in frames (wherry.container.wire) over RUN/containers/<id>/attach.sock.
What they may ask, as CONTROL messages:

    {"op": "attach", "stdin", "stdout", "stderr"}   send me these streams; mine is stdin
    {"op": "eof"}                                   my stdin ends
    {"op": "resize", "rows", "columns"}
    {"op": "kill", "signal"}                        answered by "done"
    {"op": "stop", "signal", "timeout", "keep"}     answered by "done" once it has ended;
                                                    `keep` is stronger than --rm
    {"op": "pause"}, {"op": "unpause"}              answered by "done"
    {"op": "update", "RestartPolicy"}               answered by "done"

and what it says: {"event": "started", "pid", "namespaces"}, {"event": "exit", "code"}, {"event": "done"},
{"error": …}.
"""

from __future__ import annotations

import os
import select
import time

from wherry import paths
from wherry.container.logs import DEFAULT_FILES, DEFAULT_SIZE, LogWriter
from wherry.container.signals import read_signal
from wherry.container.wire import CONTROL, SOCKET, STDERR, STDIN, STDOUT, Parser, control, frame
from wherry.errors import Conflict, WherryError, to_json
from wherry.files import make_dir, remove_file
from wherry.lean import load_json, signals, sockets
from wherry.timestamps import now
from wherry_linux import console, namespaces
from wherry_linux.cgroups import Cgroup
from wherry_linux.processes import boot_id, start_time
from wherry_linux.syscalls import set_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from wherry.container.store import Container
    from wherry.oci.runtime_spec import Spec
    from wherry_linux.runtime import Created, Runtime
    from wherry.runtime import Keeper


# A client that does not read may be this far behind before its container has to wait.
_BACKLOG = 1 << 20

# docker's restart manager: the delay doubles from 0.1 s to a minute, and starts again
# once a run has lasted ten seconds.
_FIRST_DELAY, _LONGEST_DELAY, _SETTLED = 0.1, 60.0, 10.0


class Monitor:
    """The monitor of one container, from its start to its last end."""

    def __init__(self, container: Container, runtime: Runtime, keeper: Keeper) -> None:
        self.container = container
        self.runtime = runtime
        self.keeper = keeper
        self.poll = select.epoll()
        self.handlers: dict[int, Callable[[int], None]] = {}
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.clients: list[Client] = []
        self.listener: Any = None
        self.log: LogWriter | None = None
        self.pid = 0
        self.pidfd = -1
        self.stdin = -1
        self.outputs: dict[int, str] = {}
        self.terminal = -1
        self.stdin_queue = bytearray()
        self.stdin_ended = False
        self.stopping = False
        self.keep = False
        self.wants_numbers = False
        self.numbers: dict[str, str] = {}
        self.restart_once = False
        self.stop_waiters: list[Client] = []
        self.restart_count = 0
        self.delay = _FIRST_DELAY
        self.started_at = 0.0
        self.health: Any = None
        self.done = False

    # ---- starting ----

    def run(self, first: Any, spec: Spec, lock: int, attach: Mapping[str, Any]) -> None:
        """Start the container and stay with it until it is over. Called in a forked child.

        `first` is a connected socket to the command that waits for the start, which gets
        the streams that `attach` names; `lock` the descriptor of the container's lock,
        given up once the start is recorded.
        """
        self._detach()
        client = Client(self, first)
        client.attach(attach)
        self.wants_numbers = bool(attach.get("explain"))
        self.clients.append(client)
        try:
            self._listen()
            self._open_log()
            self._start(spec)
            greeting = {"event": "started", "pid": self.pid, "namespaces": self.numbers}
        except BaseException as error:
            _trace()
            self._could_not_start(error)
            return
        finally:
            os.close(lock)
        client.send(control(greeting))
        self.loop()

    def _detach(self) -> None:
        """Leave the command's session, directory and streams."""
        os.setsid()
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        os.close(null)
        for number in (signals.SIGINT, signals.SIGHUP, signals.SIGTERM, signals.SIGQUIT):
            signals.signal(number, signals.SIG_IGN)
        for number in (signals.SIGWINCH, signals.SIGCHLD):
            signals.signal(number, signals.SIG_DFL)
        set_name("wherry-monitor")

    def _listen(self) -> None:
        make_dir(self.container.run_directory)
        directory = os.open(self.container.run_directory, os.O_RDONLY | os.O_CLOEXEC)
        os.fchdir(directory)  # a socket's path may have no more than 107 bytes
        remove_file(SOCKET)
        self.listener = sockets.socket(
            sockets.AF_UNIX, sockets.SOCK_STREAM | sockets.SOCK_CLOEXEC | sockets.SOCK_NONBLOCK
        )
        self.listener.bind(SOCKET)
        self.listener.listen(64)
        os.chdir("/")
        os.close(directory)
        self.watch(self.listener.fileno(), select.EPOLLIN, self._accept)

    def _open_log(self) -> None:
        config = self.container.body["HostConfig"].get("LogConfig") or {}
        if config.get("Type") == "none":
            return
        options = config.get("Config") or {}
        size, files = options.get("max-size"), options.get("max-file")
        limit = DEFAULT_SIZE
        if size:
            from wherry.words import read_bytes

            limit = 0 if size == "-1" else read_bytes(size)
        self.log = LogWriter(
            self.container.path("container.log"), limit, int(files) if files else DEFAULT_FILES
        )

    def _start(self, spec: Spec) -> None:
        """Create the container, connect it, and let it run."""
        body = self.container.body
        has_terminal = bool(body.get("Tty"))
        stdio: tuple[int, int, int] | None = None
        ours: tuple[int, int, int] | None = None
        if not has_terminal:
            ours, stdio = _streams(bool(body.get("OpenStdin")))
        try:
            created = self.runtime.create(
                self.container.id,
                self.container.directory,
                spec=spec,
                stdio=stdio,
                preserve=0,
                supervise=True,
            )
        except BaseException:
            for descriptor in ours or ():
                _close(descriptor)
            raise
        finally:
            for descriptor in stdio or ():
                os.close(descriptor)
        try:
            if self.wants_numbers:
                self.numbers = namespaces.numbers(created.pid)
            self.keeper.connect(self.container, created.pid)
            self.runtime.start(self.container.id)
            created.started()
        except BaseException:
            for descriptor in (*(ours or ()), created.terminal):
                _close(descriptor)
            os.kill(created.pid, 9)
            os.waitpid(created.pid, 0)
            self.runtime.delete(self.container.id, force=True)
            raise
        self._adopt(created, ours)

    def _adopt(self, created: Created, ours: tuple[int, int, int] | None) -> None:
        self.pid = created.pid
        self.pidfd = os.pidfd_open(created.pid)
        self.watch(self.pidfd, select.EPOLLIN, self._exited)
        if ours is None:
            self.terminal = self.stdin = created.terminal
            self.outputs = {created.terminal: "stdout"}
        else:
            self.stdin = ours[0]
            self.outputs = {ours[1]: "stdout", ours[2]: "stderr"}
        for descriptor in self.outputs:
            os.set_blocking(descriptor, False)
            self.watch(descriptor, select.EPOLLIN, self._output)
        if self.stdin >= 0 and self.stdin != self.terminal:
            os.set_blocking(self.stdin, False)
        self.stdin_queue.clear()
        self.stdin_ended = False
        self.started_at = time.monotonic()
        self.container.write_state(
            Status="running",
            Pid=self.pid,
            StartTime=start_time(self.pid),
            BootId=boot_id(),
            MonitorPid=os.getpid(),
            MonitorStart=start_time(os.getpid()),
            ExitCode=0,
            Error="",
            OOMKilled=False,
            StartedAt=now(),
            RestartCount=self.restart_count,
            ManuallyStopped=False,
        )
        self.container.event("start")
        self._start_health()

    def _start_health(self) -> None:
        check = self.container.body.get("Healthcheck") or {}
        test = check.get("Test") or []
        if test and test[0] != "NONE":
            from wherry_linux.health import HealthChecks

            self.health = HealthChecks(self, check)
            self.health.begin()

    def _could_not_start(self, error: BaseException) -> None:
        if not isinstance(error, WherryError):
            error = WherryError(f"{type(error).__name__}: {error}")
        code = error.exit_code if error.exit_code is not None else 128
        self._release()
        self.container.write_state(
            Status="created" if not self.restart_count else "exited",
            Pid=0,
            ExitCode=code,
            Error=error.message,
            FinishedAt=now(),
        )
        if self.container.body["HostConfig"].get("AutoRemove"):
            self._remove()
        self._say_goodbye({"error": to_json(error)})

    # ---- the loop ----

    def loop(self) -> None:
        """Serve streams, clients and timers until the container is over."""
        while not self.done:
            timeout = -1.0
            if self.timers:
                timeout = max(0.0, self.timers[0][0] - time.monotonic())
            for descriptor, mask in self.poll.poll(timeout):
                handler = self.handlers.get(descriptor)
                if handler is not None:
                    handler(mask)
            while self.timers and self.timers[0][0] <= time.monotonic():
                self.timers.pop(0)[1]()

    def watch(self, descriptor: int, mask: int, handler: Callable[[int], None]) -> None:
        """Call `handler(mask)` when something happens on `descriptor`."""
        if descriptor in self.handlers:
            self.poll.modify(descriptor, mask)
        else:
            self.poll.register(descriptor, mask)
        self.handlers[descriptor] = handler

    def unwatch(self, descriptor: int) -> None:
        if self.handlers.pop(descriptor, None) is not None:
            self.poll.unregister(descriptor)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` once, later."""
        self.timers.append((time.monotonic() + seconds, action))
        self.timers.sort(key=lambda timer: timer[0])

    def cancel(self, action: Callable[[], None]) -> None:
        self.timers = [timer for timer in self.timers if timer[1] != action]

    # ---- streams ----

    def _output(self, mask: int) -> None:
        for descriptor in list(self.outputs):
            self._read_output(descriptor)

    def _read_output(self, descriptor: int) -> bool:
        """Pass on what is there; False once there is nothing more for now."""
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # EIO: nobody has the terminal open any more
        stream = self.outputs[descriptor]
        if not data:
            self.unwatch(descriptor)
            del self.outputs[descriptor]
            if descriptor != self.terminal:
                os.close(descriptor)
            return False
        if self.log is not None:
            self.log.write(stream, data)
        kind = STDOUT if stream == "stdout" else STDERR
        packet = frame(kind, data)
        for client in list(self.clients):
            if kind in client.wants:
                client.send(packet)
        if any(client.is_behind() for client in self.clients):
            self._hold_outputs()
        return True

    def _hold_outputs(self) -> None:
        """Let the container wait until its slowest reader has caught up."""
        for descriptor in self.outputs:
            self.unwatch(descriptor)

    def resume_outputs(self) -> None:
        """A client has caught up."""
        if not any(client.is_behind() for client in self.clients):
            for descriptor in self.outputs:
                if descriptor not in self.handlers:
                    self.watch(descriptor, select.EPOLLIN, self._output)

    def write_stdin(self, data: bytes) -> None:
        """What an attached client typed."""
        if self.stdin < 0 or self.stdin_ended:
            return
        self.stdin_queue += data
        self._flush_stdin(0)

    def end_stdin(self) -> None:
        """An attached client has nothing more to say."""
        if self.stdin < 0 or not self.container.body.get("StdinOnce"):
            return
        self.stdin_ended = True
        self._flush_stdin(0)

    def _flush_stdin(self, mask: int) -> None:
        while self.stdin_queue:
            try:
                written = os.write(self.stdin, self.stdin_queue)
            except BlockingIOError:
                self._wait_for_stdin()
                return
            except OSError:
                self.stdin_queue.clear()  # nobody reads it
                self.stdin_ended = True
                break
            was_full = self.stdin_is_full()
            del self.stdin_queue[:written]
            if was_full and not self.stdin_is_full():
                for client in self.clients:
                    client.watch()
        if self.stdin == self.terminal:
            self.watch(self.stdin, select.EPOLLIN, self._output)
            if self.stdin_ended:
                # A terminal has no end of file: the line discipline makes one of ^D.
                os.write(self.stdin, b"\x04")
            return
        self.unwatch(self.stdin)
        if self.stdin_ended:
            os.close(self.stdin)
            self.stdin = -1

    def _wait_for_stdin(self) -> None:
        if self.stdin == self.terminal:
            self.watch(self.stdin, select.EPOLLIN | select.EPOLLOUT, self._terminal_ready)
        else:
            self.watch(self.stdin, select.EPOLLOUT, self._flush_stdin)

    def _terminal_ready(self, mask: int) -> None:
        if mask & select.EPOLLIN:
            self._output(mask)
        if mask & select.EPOLLOUT:
            self._flush_stdin(mask)

    def stdin_is_full(self) -> bool:
        """Whether clients should hold back what they have to say."""
        return len(self.stdin_queue) > _BACKLOG

    # ---- clients ----

    def _accept(self, mask: int) -> None:
        try:
            descriptor, _ = self.listener._accept()
        except BlockingIOError:
            return
        self.clients.append(Client(self, sockets.socket(fileno=descriptor)))

    def handle(self, client: Client, message: dict[str, Any]) -> None:
        """Carry out what a client asks for."""
        operation = message.get("op")
        if operation == "attach":
            client.attach(message)
            client.send(control({"event": "attached", "pid": self.pid}))
        elif operation == "eof":
            self.end_stdin()
        elif operation == "resize":
            if self.terminal >= 0:
                console.set_size(self.terminal, message["rows"], message["columns"])
        elif operation == "stop":
            self._stop(client, message)
        else:
            try:
                self._carry_out(operation, message)
            except WherryError as error:
                client.send(control({"error": to_json(error)}))
            else:
                client.send(control({"event": "done"}))

    def _carry_out(self, operation: object, message: dict[str, Any]) -> None:
        if operation == "kill":
            self._kill(message["signal"], message.get("final", False))
        elif operation == "pause":
            self.runtime.pause(self.container.id)
            self.container.write_state(Status="paused")
            self.container.event("pause")
        elif operation == "unpause":
            self.runtime.resume(self.container.id)
            self.container.write_state(Status="running")
            self.container.event("unpause")
        elif operation == "update":
            self.container.body["HostConfig"]["RestartPolicy"] = message["RestartPolicy"]
        else:
            raise WherryError(f"the monitor does not know {operation!r}")

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
        """A frozen container dies of SIGKILL only once it is let go."""
        path = self.runtime.record(self.container.id)["cgroup"]
        if path and Cgroup(path).is_frozen():
            Cgroup(path).freeze(frozen=False)

    def _stop(self, client: Client, message: dict[str, Any]) -> None:
        self.stopping = True
        self.stop_waiters.append(client)
        self.keep = self.keep or bool(message.get("keep"))
        self.container.write_state(ManuallyStopped=True, Kept=self.keep)
        if not self.pid:
            # Between two runs: the next one does not come.
            self.cancel(self._restart)
            self._over()
            return
        number, timeout = message["signal"], message["timeout"]
        self._thaw()
        signals.pidfd_send_signal(self.pidfd, number)
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

    def _exited(self, mask: int) -> None:
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        code = 128 - code if code < 0 else code
        self.unwatch(self.pidfd)
        os.close(self.pidfd)
        self.pid, self.pidfd = 0, -1
        if self.health is not None:
            self.health.end()
            self.health = None
        self._drain()
        if self.log is not None:
            self.log.finish()
        was_killed_for_memory = self._out_of_memory()
        self._release()
        self.container.write_state(
            Status="exited",
            Pid=0,
            ExitCode=code,
            OOMKilled=was_killed_for_memory,
            FinishedAt=now(),
        )
        if was_killed_for_memory:
            self.container.event("oom")
        lasted = int(time.monotonic() - self.started_at)
        self.container.event("die", exitCode=str(code), execDuration=str(lasted))
        if self._will_restart(code):
            self._schedule_restart()
        else:
            self._over()

    def _drain(self) -> None:
        """Pass on what the container wrote before it ended."""
        deadline = time.monotonic() + 1
        while self.outputs and time.monotonic() < deadline:
            if not any([self._read_output(descriptor) for descriptor in list(self.outputs)]):
                if not self.outputs:
                    break
                # Somebody outside still has the pipe: a process that shares the host's pids.
                poll = select.poll()
                for descriptor in self.outputs:
                    poll.register(descriptor, select.POLLIN)
                if not poll.poll(50):
                    break

    def _out_of_memory(self) -> bool:
        try:
            path = self.runtime.record(self.container.id)["cgroup"]
        except WherryError:
            return False
        if not path:
            return False
        try:
            with open(f"{Cgroup(path).directory}/memory.events") as lines:
                return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in lines)
        except OSError:
            return False

    def _release(self) -> None:
        """Give back what one run had: streams, namespaces, mounts, network."""
        for descriptor in list(self.outputs):
            self.unwatch(descriptor)
            if descriptor != self.terminal:
                os.close(descriptor)
        self.outputs = {}
        if self.stdin >= 0 and self.stdin != self.terminal:
            self.unwatch(self.stdin)
            os.close(self.stdin)
        if self.terminal >= 0:
            self.unwatch(self.terminal)
            os.close(self.terminal)
        self.stdin = self.terminal = -1
        try:
            self.runtime.delete(self.container.id, force=True)
            self.keeper.ended(self.container)
        except WherryError:
            pass  # the next command tries again

    def _will_restart(self, code: int) -> bool:
        policy = self.container.body["HostConfig"].get("RestartPolicy") or {}
        name = policy.get("Name") or "no"
        if self.restart_once:
            self.restart_once = False
            return not self.stopping
        if self.stopping or name == "no":
            return False
        if name == "on-failure":
            most = policy.get("MaximumRetryCount") or 0
            return code != 0 and (not most or self.restart_count < most)
        return True

    def _schedule_restart(self) -> None:
        if time.monotonic() - self.started_at >= _SETTLED:
            self.delay = _FIRST_DELAY
        self.container.write_state(Status="restarting")
        self.after(self.delay, self._restart)
        self.delay = min(self.delay * 2, _LONGEST_DELAY)

    def _restart(self) -> None:
        self.restart_count += 1
        try:
            self._start(self.keeper.prepare(self.container))
        except WherryError as error:
            self.container.write_state(
                Status="exited", Error=error.message, ExitCode=error.exit_code or 128
            )
            self.started_at = time.monotonic()
            if self._will_restart(error.exit_code or 128):
                self._schedule_restart()
            else:
                self._over()

    def _over(self) -> None:
        """The container has ended for good."""
        code = self.container.state["ExitCode"]
        if self.container.state["Status"] == "restarting":
            self.container.write_state(Status="exited")
        if self.stop_waiters:
            self.container.event("stop")
        if self.container.body["HostConfig"].get("AutoRemove") and not self.keep:
            self._remove()
        for client in self.stop_waiters:
            client.send(control({"event": "done"}))
        self._say_goodbye({"event": "exit", "code": code})

    def _remove(self) -> None:
        try:
            self.keeper.remove(self.container)
        except WherryError:
            pass  # the next command tries again

    def _say_goodbye(self, message: dict[str, Any]) -> None:
        """Tell everybody, wait until they have read it, and stop listening."""
        self.done = True
        if self.listener is not None:
            self.listener.close()
            remove_file(os.path.join(self.container.run_directory, SOCKET))
            try:
                os.rmdir(self.container.run_directory)
            except OSError:
                pass
        for client in list(self.clients):
            client.finish(control(message))


class Client:
    """A command that is connected to a monitor."""

    def __init__(self, monitor: Monitor, socket: Any) -> None:
        self.monitor = monitor
        self.socket = socket
        self.wants: set[int] = set()
        self.has_stdin = False
        self.parser = Parser()
        self.queue = bytearray()
        socket.setblocking(False)
        monitor.watch(socket.fileno(), select.EPOLLIN, self._ready)

    def attach(self, options: Mapping[str, Any]) -> None:
        """Send these streams from now on."""
        self.wants = {
            kind for kind, name in ((STDOUT, "stdout"), (STDERR, "stderr")) if options.get(name)
        }
        self.has_stdin = bool(options.get("stdin"))

    def is_behind(self) -> bool:
        """Whether more waits to be sent than we care to hold."""
        return len(self.queue) > _BACKLOG

    def send(self, packet: bytes) -> None:
        """Send `packet` as soon as the client reads."""
        self.queue += packet
        self._flush()

    def _flush(self) -> None:
        was_behind = self.is_behind()
        try:
            while self.queue:
                del self.queue[: self.socket.send(self.queue)]
        except BlockingIOError:
            pass
        except OSError:
            self._gone()
            return
        self.watch()
        if was_behind and not self.is_behind():
            self.monitor.resume_outputs()

    def watch(self) -> None:
        """Listen, unless this client types faster than the container reads."""
        is_held = self.has_stdin and self.monitor.stdin_is_full()
        mask = (0 if is_held else select.EPOLLIN) | (select.EPOLLOUT if self.queue else 0)
        self.monitor.watch(self.socket.fileno(), mask, self._ready)

    def _ready(self, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._flush()
        if mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            self._receive()

    def _receive(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._gone()
            return
        for kind, payload in self.parser.feed(data):
            if kind == STDIN:
                self.monitor.write_stdin(payload)
            elif kind == CONTROL:
                self.monitor.handle(self, load_json(payload))
        if self.monitor.stdin_is_full() and self in self.monitor.clients:
            self.watch()

    def _gone(self) -> None:
        if self not in self.monitor.clients:
            return
        self.monitor.clients.remove(self)
        self.monitor.unwatch(self.socket.fileno())
        self.socket.close()
        self.queue.clear()
        if self.has_stdin:
            self.monitor.end_stdin()
        self.monitor.resume_outputs()

    def finish(self, packet: bytes) -> None:
        """Send the last words, waiting for a slow reader, and close."""
        self.queue += packet
        try:
            self.socket.setblocking(True)
            self.socket.settimeout(None)
            self.socket.sendall(self.queue)
        except OSError:
            pass
        self.socket.close()


def _trace() -> None:
    """With WHERRY_DEBUG, where the exception at hand comes from: stderr is /dev/null here."""
    if os.environ.get("WHERRY_DEBUG"):
        import traceback

        with open(f"{paths.run()}/monitor.log", "a") as file:
            traceback.print_exc(file=file)


def _streams(has_stdin: bool) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Our ends and the container's ends of its three streams."""
    if has_stdin:
        stdin_read, stdin_write = os.pipe2(os.O_CLOEXEC)
    else:
        stdin_read, stdin_write = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    return (stdin_write, out_read, err_read), (stdin_read, out_write, err_write)


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)

