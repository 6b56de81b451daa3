"""The process that owns a running machine: QEMU, its monitor, the SSH connection.

It is started by the first command that needs the machine, belongs to no terminal, and ends
with the machine. Commands connect to its socket, say what they want in one frame and read
until it is there:

    {"op": "command"}            {"event": "progress", "text": …}…  {"event": "joined"}
                                 and from there on the connection is the guest runner's
    {"op": "wait"}               the same, without the rest
    {"op": "state"}              {"event": "state", …}
    {"op": "stop", "force": …}   {"event": "stopped"}

A machine that is about to end answers {"event": "ending"} instead: who needs it waits until
its lock is free, and starts it again.

What goes wrong is {"error": …}, see wherry.errors.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time

from wherry.container.wire import Parser, control
from wherry.errors import Conflict, MachineError, WherryError, to_json
from wherry.files import make_dir, remove_file, write_json
from wherry.lean import load_json
from wherry_vm import boot, machines
from wherry_vm.ports import Forwards
from wherry_vm.protocol import CHUNK, RUNNER_SOCKET, first_frames
from wherry_vm.shares.mounts import Mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry_vm.boot import Boot
    from wherry_vm.events import EventChannel
    from wherry_vm.machines import Machine
    from wherry_vm.qemu.accelerator import Refusal
    from wherry_vm.ssh import GuestTransport

LISTENING = b"listening\n"
"""What whoever started the supervisor reads when it can be connected to."""

_STOP_PATIENCE = 30
_WATCH = 0.5
_TELLING = 5
_DRIFT = 0.5
"""Seconds that the guest's clock may be off."""


def main(name: str) -> int:
    """Run the machine called `name` until it stops."""
    machine = machines.load(name)
    make_dir(machine.run_directory)
    try:
        with machine.lock(wait=False):
            supervisor = Supervisor(machine)
            os.write(1, LISTENING)
            # Whoever waits for our standard output to end need not wait for the machine's.
            os.dup2(2, 1)
            return supervisor.run()
    except Conflict:
        # Another supervisor was quicker, and serves whoever started us.
        os.write(1, LISTENING)
        return 0


class Supervisor:
    """A machine from its start to its end."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._changed = threading.Condition()
        self._state = "starting"
        self._progress: list[str] = []
        self._error: WherryError | None = None
        self._ready: dict[str, Any] | None = None
        self._boot: Boot | None = None
        self._qmp: Any = None
        self._events: EventChannel | None = None
        self._ssh: GuestTransport | None = None
        self._connecting = threading.Lock()
        self._mounts = Mounts(machine, machine.shares())
        self._commands = 0
        self._running = 0
        self._last_use = time.monotonic()
        self._key = os.urandom(32)
        self._told = threading.Event()
        self._speaking = threading.Lock()
        self._forwards = Forwards(self._monitor)
        self._listener = self._listen()
        threading.Thread(target=self._accept, daemon=True, name="accept").start()

    def run(self) -> int:
        """Boot, serve, and end; 0 where it ended as it was asked to."""
        try:
            self._start()
            self._serve()
        except WherryError as error:
            self._fail(error)
            return 1
        except Exception as error:
            import traceback

            traceback.print_exc()
            self._fail(MachineError(f"the machine's supervisor failed: {error}"))
            return 1
        finally:
            self._end()
        return 0

    # ---- from off to running ----

    def _start(self) -> None:
        from wherry_vm.disk import ensure_disk
        from wherry_vm.image import find_image
        from wherry_vm.keys import ensure_keys
        from wherry_vm.orphan import end_orphan
        from wherry_vm.qemu.binary import find_qemu
        from wherry_vm.qemu.host import this_host

        self._tell(f"Starting machine {self.machine.name}")
        self._mounts.check()
        host = this_host()
        qemu = find_qemu(host)
        image = find_image(self.machine, host, self._tell)
        ensure_keys(self.machine)
        ensure_disk(self.machine)
        end_orphan(self.machine)
        names, refusals = boot.order(self.machine, host, qemu, image)
        for name in names:
            if slow := boot.slow_because(name, refusals):
                self._tell(slow)
            attempt = boot.Boot(self.machine, host, qemu, image, name)
            self._boot = attempt
            try:
                self._come_up(attempt)
            except (boot.Silent, MachineError) as error:
                attempt.end()
                if name == names[-1]:
                    if isinstance(error, MachineError):
                        raise
                    raise MachineError(f"no guest runs here: {error}") from error
                refusals.append(_refusal(name, error))
                continue
            break
        boot.remember(self.machine, qemu, image, name, refusals)
        self._mounts.settle()
        with self._changed:
            self._state = "running"
            self._last_use = time.monotonic()
            self._changed.notify_all()

    def _come_up(self, attempt: Boot) -> None:
        """Wait for the guest, and connect to it."""
        # Loads while the guest boots.
        from wherry_vm import ssh  # noqa: F401
        from wherry_vm.events import EventChannel

        self._ready = None
        self._events = EventChannel(attempt.accept(attempt.events_listener, 10), self._hear)
        self._connect_monitor(attempt)
        attempt.wait_ready(self._is_ready)
        if self._ready and self._ready.get("data") != "mounted":
            raise MachineError(f"the machine's disk cannot be used: {self._ready.get('data')}")
        # The guest mounts while we connect.
        ports = [attempt.accept(each, 10) for each in attempt.share_listeners]
        if ports:
            self._mounts.attach(ports, self._events.send)
        self._ssh = self._log_in(attempt)

    def _connect_monitor(self, attempt: Boot) -> None:
        from qemu.qmp import QMPError
        from qemu.qmp.legacy import QEMUMonitorProtocol

        self._qmp = QEMUMonitorProtocol(attempt.accept(attempt.qmp_listener, 10))
        try:
            self._qmp.connect()
        except QMPError as error:
            attempt.wait_briefly()
            raise boot.Silent(f"QEMU's monitor does not answer: {error}") from error

    def _monitor(self, line: str) -> str:
        """What QEMU's human monitor says to a line."""
        with self._speaking:
            said: str = self._qmp.cmd("human-monitor-command", **{"command-line": line})
        return said

    def _is_ready(self, seconds: float) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._ready is not None, seconds)
            return self._ready is not None

    def _hear(self, message: dict[str, Any]) -> None:
        """What the guest's agent says."""
        if message.get("event") == "ready":
            with self._changed:
                self._ready = message
                self._changed.notify_all()
        self._mounts.hear(message)
        if message.get("event") == "ports" and self._events is not None:
            answer = self._forwards.answer(message)
            self._events.send({"op": "ports", "id": message["id"], "answer": answer})
        if isinstance(message.get("running"), int):
            self._running = message["running"]
        if isinstance(message.get("time"), int | float) and self._events is not None:
            now = time.time()
            if abs(message["time"] - now) > _DRIFT:
                self._events.send({"op": "time", "time": now})

    # ---- running ----

    def _serve(self) -> None:
        """Until the machine is to stop, has nothing left to do, or has stopped by itself."""
        attempt = self._boot
        assert attempt is not None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._state == "stopping", _WATCH)
                if self._state == "stopping":
                    break
                if self._is_idle():
                    self._state = "stopping"
                    break
            attempt.check()
        self._shut_down(attempt)

    def _is_idle(self) -> bool:
        limit = self.machine.settings.idle
        if self._commands or self._running:
            self._last_use = time.monotonic()
        return bool(limit) and time.monotonic() - self._last_use > limit

    def _shut_down(self, attempt: Boot) -> None:
        """Ask the guest to end, and see that it does."""
        if self._events is not None:
            self._events.send({"op": "poweroff"})
        with contextlib.suppress(Exception):
            attempt.process.wait(_STOP_PATIENCE)
        if attempt.process.poll() is None:
            print(f"the guest did not power off within {_STOP_PATIENCE} s: killed", file=sys.stderr)

    def _fail(self, error: WherryError) -> None:
        print(f"wherry: {error}", file=sys.stderr)
        with self._changed:
            self._state, self._error = "failed", error
            self._changed.notify_all()
        # Whoever started this process has to be told before it ends.
        self._told.wait(_TELLING)

    def _end(self) -> None:
        self._mounts.close()
        self._forwards.close()
        if self._boot is not None:
            self._boot.end()
        with self._changed:
            if self._state != "failed":
                self._state = "stopped"
            self._changed.notify_all()
        for thread in threading.enumerate():
            if thread.name == "client":
                thread.join(2)
        for name in ("supervisor.sock", "supervisor.json", "qemu.json", "qmp.sock", "events.sock"):
            remove_file(os.path.join(self.machine.run_directory, name))

    def _tell(self, text: str) -> None:
        """Progress, for whoever waits."""
        with self._changed:
            self._progress.append(text)
            self._changed.notify_all()

    # ---- whoever connects ----

    def _listen(self) -> socket.socket:
        directory = self.machine.run_directory
        if not hasattr(socket, "AF_UNIX"):
            listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            write_json(
                os.path.join(directory, "supervisor.json"),
                {"port": listener.getsockname()[1], "key": self._key.hex()},
            )
            return listener
        path = os.path.join(directory, "supervisor.sock")
        remove_file(path)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(128)
        return listener

    def _accept(self) -> None:
        while True:
            stream, _ = self._listener.accept()
            threading.Thread(target=self._meet, args=(stream,), daemon=True, name="client").start()

    def _meet(self, stream: socket.socket) -> None:
        """Serve one connection."""
        with stream, contextlib.suppress(OSError):
            if not self._is_ours(stream):
                return
            frames = first_frames(stream, Parser())
            if not frames:
                return
            request = load_json(frames[0][1])
            try:
                self._answer(stream, request)
            except WherryError as error:
                stream.sendall(control({"error": to_json(error)}))
                self._told.set()

    def _is_ours(self, stream: socket.socket) -> bool:
        """Whether the same user is at the other end."""
        if not hasattr(socket, "AF_UNIX"):
            from wherry_vm.link import prove

            stream.settimeout(5)
            prove(stream, self._key, b"supervisor", b"command")
            stream.settimeout(None)
            return True
        if sys.platform == "linux":
            import struct

            size = struct.calcsize("3i")
            credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            _, uid, _ = struct.unpack("3i", credentials)
            return uid in (os.geteuid(), 0)
        return True  # nobody else can enter the directory

    def _answer(self, stream: socket.socket, request: dict[str, Any]) -> None:
        operation = request.get("op")
        if operation == "state":
            stream.sendall(control({"event": "state", **self._describe()}))
        elif operation == "stop":
            self._stop(force=bool(request.get("force")))
            stream.sendall(control({"event": "stopped"}))
        elif operation in ("wait", "command"):
            if not self._wait_until_up(stream):
                stream.sendall(control({"event": "ending"}))
            elif operation == "wait":
                stream.sendall(control({"event": "joined"}))
            else:
                self._carry(stream)
        else:
            raise MachineError(f"the supervisor knows no {operation!r}")

    def _describe(self) -> dict[str, Any]:
        attempt = self._boot
        return {
            "state": self._state,
            "accelerator": attempt.accelerator if attempt else "",
            "pid": attempt.process.pid if attempt else 0,
            "ssh_port": attempt.ssh_port if attempt else 0,
            "commands": self._commands,
            "running": self._running,
        }

    def _stop(self, *, force: bool) -> None:
        with self._changed:
            self._state = "stopping"
            self._changed.notify_all()
        if force and self._boot is not None:
            self._boot.process.kill()
        if self._boot is not None:
            self._boot.process.wait()

    def _wait_until_up(self, stream: socket.socket) -> bool:
        """Tell `stream` how the start goes; False where the machine is about to end.

        Raises what keeps the start from ending well.
        """
        told = 0
        while True:
            with self._changed:
                while self._state == "starting" and len(self._progress) == told:
                    self._changed.wait()
                texts, told = self._progress[told:], len(self._progress)
                state, error = self._state, self._error
            if state == "running":
                return self._is_alive()
            for text in texts:
                stream.sendall(control({"event": "progress", "text": text}))
            if error is not None:
                raise error
            if state != "starting":
                return False

    def _is_alive(self) -> bool:
        return self._boot is not None and self._boot.process.poll() is None

    def _carry(self, stream: socket.socket) -> None:
        """Join a command to the guest's runner until either has ended."""
        with self._changed:
            self._commands += 1
        try:
            self._mounts.catch_up()
            channel = self._session().open_socket(RUNNER_SOCKET)
            stream.sendall(control({"event": "joined"}))
            threading.Thread(
                target=_pump, args=(stream, channel), daemon=True, name="to guest"
            ).start()
            with contextlib.suppress(OSError):
                while data := channel.recv(CHUNK):
                    stream.sendall(data)
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            channel.close()
        finally:
            with self._changed:
                self._commands -= 1
                self._last_use = time.monotonic()

    def _session(self) -> GuestTransport:
        """The SSH connection; a new one where it has broken off, as in a host that slept."""
        assert self._ssh is not None
        assert self._boot is not None
        with self._connecting:
            if not self._ssh.is_active():
                self._ssh.close()
                self._ssh = self._log_in(self._boot)
            return self._ssh

    def _log_in(self, attempt: Boot) -> GuestTransport:
        """A connection to the guest, with the shares on it that have no ports of their own."""
        from wherry_vm.ssh import connect

        assert self._events is not None
        session = connect(self.machine, attempt.ssh_port)
        if not attempt.share_listeners:
            self._mounts.connect(session, self._events.send)
        return session


def _pump(stream: socket.socket, channel: Any) -> None:
    """From the command to the guest; when the command is gone, the guest's end is closed."""
    with contextlib.suppress(OSError):
        while data := stream.recv(CHUNK):
            channel.sendall(data)
    channel.close()


def _refusal(name: str, error: Exception) -> Refusal:
    from wherry_vm.qemu.accelerator import Refusal

    return Refusal(name=name, reason=str(error))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
