"""The process that owns a running machine: QEMU, its monitor, the ways to the guest.

It is started by the first command that needs the machine, belongs to no terminal, and ends
with the machine. Commands connect to its socket, say what they want in one frame and read
until it is there:

    {"op": "command", …}         {"event": "progress", "text": …}…  {"event": "joined"}
                                 and from there on the connection is the guest runner's;
                                 "authorities" in the request is what SSL_CERT_FILE says, and
                                 "version" that of the wherry that asks
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
import shutil
import sys
import threading
import time

from wherry import __version__
from wherry.container.wire import control
from wherry.errors import Conflict, MachineError, WherryError, as_ours, to_json
from wherry.files import make_dir
from wherry_vm import boot, machines
from wherry_vm.carrying import Audience
from wherry_vm.channels import Channels, join
from wherry_vm.descriptors import allow_many
from wherry_vm.disk import lack_of_space
from wherry_vm.log import log_what_is_said
from wherry_vm.ports import Forwards
from wherry_vm.problems import Problems
from wherry_vm.reception import Reception
from wherry_vm.saved import word_to_go_on
from wherry_vm.shares.finding import check_shares
from wherry_vm.shares.mounts import Mounts
from wherry_vm.ways import Ways

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from typing import Any

    from wherry_vm.boot import Boot
    from wherry_vm.channels import Channel
    from wherry_vm.events import EventChannel
    from wherry_vm.image import GuestImage
    from wherry_vm.machines import Machine
    from wherry_vm.qemu.accelerator import Refusal
    from wherry_vm.qemu.binary import Qemu
    from wherry_vm.qemu.host import Host
    from wherry_vm.surroundings.telling import Surroundings

LISTENING = b"listening\n"
"""What whoever started the supervisor reads when it can be connected to."""

_STOP_PATIENCE = 30
_WATCH = 0.5
_TELLING = 5
_BEATS, _SILENCE = 10, 20
"""Seconds without a word of the guest's agent, which says something every five: what makes
one wonder, and what is a state of its own."""
_DRIFT = 0.5
"""Seconds that the guest's clock may be off."""


def main(name: str) -> int:
    """Run the machine called `name` until it stops."""
    log_what_is_said()
    try:
        with machines.load(name).lock(wait=False):
            # It may have been changed or removed before we had the lock.
            machine = machines.load(name)
            allow_many()
            make_dir(machine.run_directory)
            supervisor = Supervisor(machine)
            os.write(1, LISTENING)
            # Whoever waits for our standard output to end need not wait for the machine's.
            os.dup2(2, 1)
            return supervisor.run()
    except Conflict:
        # Another supervisor was quicker, and serves whoever started us.
        os.write(1, LISTENING)
        return 0
    except Exception as error:
        print(f"wherry: {as_ours(error).message}", file=sys.stderr)
        return 1


class Supervisor:
    """A machine from its start to its end."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._changed = threading.Condition()
        self._state = "starting"
        self._progress: list[str] = []
        # What kept it from coming up.
        self._error: WherryError | None = None
        self._was_up = False
        self._has_paused = self._is_listening = False
        self._ready: dict[str, Any] | None = None
        self._boot: Boot | None = None
        self._events: EventChannel | None = None
        self._ways: Ways | None = None
        self._channels = Channels(self._open_channel)
        self._mounts = Mounts(machine, machine.shares())
        self._problems = Problems()
        self._surroundings: Surroundings | None = None
        # The files of certificates that commands have named, in their order.
        self._authorities: dict[str, None] = {}
        self._commands = 0
        self._running = 0
        self._last_use = self._last_heard = time.monotonic()
        self._trouble = self._lack = ""
        self._told = threading.Event()
        self._forwards = Forwards(self._monitor)
        self._reception = Reception(machine.run_directory, self._receive)
        self._audience = Audience()
        # The release that was told that we are of another.
        self._outlived: object = None

    def run(self) -> int:
        """Boot, serve, and end; 0 where it ended as it was asked to."""
        try:
            self._start()
            self._serve()
        except boot.Cancelled:
            return 0
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
        from wherry_vm.image import architecture, find_image
        from wherry_vm.keys import ensure_keys
        from wherry_vm.orphan import end_orphan
        from wherry_vm.qemu.binary import find_qemu
        from wherry_vm.qemu.host import this_host

        self._tell(f"Starting machine {self.machine.name}")
        check_shares(self.machine)
        # Whoever has no QEMU is told so at once.
        host = this_host().running(architecture(self.machine))
        qemu = find_qemu(host)
        image = find_image(self.machine, self._tell)
        ensure_keys(self.machine)
        ensure_disk(self.machine)
        end_orphan(self.machine)
        names, refusals = boot.order(self.machine, host, qemu, image)
        for name in names:
            if slow := boot.slow_because(name, refusals):
                self._tell(slow)
            try:
                self._bring_up(host, qemu, image, name)
            except (boot.Silent, MachineError) as error:
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
            if self._state == "stopping":
                raise boot.Cancelled
            self._state, self._was_up = "running", True
            self._last_use = self._last_heard = time.monotonic()
            self._changed.notify_all()

    def _bring_up(self, host: Host, qemu: Qemu, image: GuestImage, accelerator: str) -> None:
        """Start under an accelerator: go on from the saved start, or boot."""
        attempt = self._attempt(host, qemu, image, accelerator)
        try:
            self._come_up(attempt)
        except (boot.Silent, MachineError) as error:
            attempt.end()
            if not attempt.resumes or attempt.saved is None:
                raise
            print(f"wherry: the saved start is of no use: {error}", file=sys.stderr)
            attempt.saved.remove()
            self._bring_up(host, qemu, image, accelerator)

    def _attempt(self, host: Host, qemu: Qemu, image: GuestImage, accelerator: str) -> Boot:
        """QEMU as it starts. Raises Cancelled where the machine is to stop."""
        attempt = boot.Boot(self.machine, host, qemu, image, accelerator)
        with self._changed:
            self._boot = attempt
            if self._state == "stopping":
                raise boot.Cancelled
        return attempt

    def _come_up(self, attempt: Boot) -> None:
        """Wait for the guest, and connect to it."""
        from concurrent.futures import ThreadPoolExecutor

        from wherry_vm.events import EventChannel

        self._is_listening = self._has_paused = False
        self._ready = None
        self._events = EventChannel(attempt.accept(attempt.events_listener, 10), self._hear)
        attempt.connect_monitor()
        ways = self._ways = Ways(self.machine, attempt, self._mounts, self._events.send)
        with ThreadPoolExecutor(1) as helper:
            paused = helper.submit(self._pause, attempt, self._events)
            # Loads while the guest boots.
            from wherry_vm.surroundings import telling  # noqa: F401

            ways.load()
            paused.result()
        attempt.wait_ready(lambda seconds: self._wait(lambda: self._is_listening, seconds))
        with ThreadPoolExecutor(1) as helper:
            # The rest comes up while we connect.
            login = helper.submit(ways.log_in)
            attempt.wait_ready(lambda seconds: self._wait(lambda: bool(self._ready), seconds))
            self._attach(ways)
            login.result()

    def _pause(self, attempt: Boot, events: EventChannel) -> None:
        """Have a start that is saved go on from where it is, or be saved there."""
        if attempt.saved is None:
            return
        if attempt.resumes:
            attempt.saved.resume(attempt)
        else:
            attempt.wait_ready(lambda seconds: self._wait(lambda: self._has_paused, seconds))
            attempt.saved.save(attempt)
        events.send(word_to_go_on(self.machine))

    def _attach(self, ways: Ways) -> None:
        """Give a guest that is ready what it needs of the host. Raises MachineError."""
        from wherry_vm.disk import settle_disk
        from wherry_vm.surroundings.telling import Surroundings

        assert self._events is not None
        if self._ready and self._ready.get("data") != "mounted":
            raise MachineError(f"the machine's disk cannot be used: {self._ready.get('data')}")
        settle_disk(self.machine)
        ways.attach_shares()
        self._surroundings = Surroundings(self.machine, self._events.send, self._authorities)
        self._surroundings.tell()

    def _monitor(self, line: str) -> str:
        """What QEMU's human monitor says to a line."""
        assert self._boot is not None
        assert self._boot.monitor is not None
        return self._boot.monitor.command(line)

    def _wait(self, is_so: Callable[[], bool], seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(is_so, seconds)

    def _hear(self, message: dict[str, Any]) -> None:
        """What the guest's agent says. Raises what is in wherry_vm.protocol.NONSENSE."""
        self._last_heard = time.monotonic()
        if message.get("event") in ("paused", "listening", "ready"):
            with self._changed:
                self._has_paused = message["event"] == "paused"
                self._is_listening = not self._has_paused
                if message["event"] == "ready":
                    self._ready = message
                self._changed.notify_all()
        if self._ways is not None:
            self._ways.hear(message)
        self._mounts.hear(message)
        self._problems.hear(message)
        if self._surroundings is not None:
            self._surroundings.hear(message)
        if message.get("event") == "ports" and self._events is not None:
            answer = self._forwards.answer(message)
            self._events.send({"op": "ports", "id": message["id"], "answer": answer})
        if message.get("event") == "listeners":
            for text in self._forwards.follow(message["listeners"]):
                print(text, file=sys.stderr, flush=True)
                self._audience.warn(text)
        if message.get("event") == "beat":
            self._forwards.follow_again()
        if isinstance(message.get("running"), int):
            self._running = message["running"]
        if isinstance(message.get("time"), int | float) and self._events is not None:
            now = time.time()
            if abs(message["time"] - now) > _DRIFT:
                self._events.send({"op": "time", "time": now, "seen": message["time"]})

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
            attempt.limit_console()
            self._look_after(attempt)
        self._shut_down(attempt)

    def _look_after(self, attempt: Boot) -> None:
        """Find out what is the matter with a guest that says nothing any more, or with SSH."""
        if self._ways is not None:
            self._ways.tell_of_end()
        self._look_for_space()
        silent = self._silence()
        if silent < _SILENCE:
            self._trouble = ""
        elif not self._trouble:
            self._trouble = attempt.diagnosis(silent)
            print(f"wherry: the guest does not answer: {self._trouble}", file=sys.stderr)
            if attempt.is_mute():
                # A guest may only be busy; from a QEMU that is stuck nothing comes any more.
                error = self._does_not_answer(self._trouble)
                self._audience.dismiss({"error": to_json(error)})

    def _look_for_space(self) -> None:
        before, self._lack = self._lack, lack_of_space(self.machine)
        if self._lack and not before:
            print(f"wherry: {self._lack}", file=sys.stderr)
            # Whoever comes is told for as long as it is so.
            self._audience.warn(self._lack, later=False)

    def _is_idle(self) -> bool:
        limit = self.machine.settings.idle
        if self._commands or self._running:
            self._last_use = time.monotonic()
        return bool(limit) and time.monotonic() - self._last_use > limit

    def _shut_down(self, attempt: Boot) -> None:
        """Ask the guest to end, and see that it does."""
        if self._events is not None:
            # In a thread: a QEMU that is stuck takes nothing.
            words = ({"op": "poweroff"},)
            threading.Thread(target=self._events.send, args=words, daemon=True).start()
        with contextlib.suppress(Exception):
            attempt.process.wait(_STOP_PATIENCE)
        if attempt.process.poll() is None:
            print(f"the guest did not power off within {_STOP_PATIENCE} s: killed", file=sys.stderr)

    def _fail(self, error: WherryError) -> None:
        print(f"wherry: {error}", file=sys.stderr)
        with self._changed:
            was_up = self._was_up
            self._state, self._error = "failed", None if was_up else error
            self._changed.notify_all()
        # Whoever started this process has to be told before it ends. What befell a machine
        # that ran is nothing to the next command, which starts it again.
        if not was_up:
            self._told.wait(_TELLING)

    def _end(self) -> None:
        self._mounts.close()
        self._forwards.close()
        if self._surroundings is not None:
            self._surroundings.close()
        if self._boot is not None:
            self._boot.end()
        with self._changed:
            if self._state != "failed":
                self._state = "stopped"
            self._changed.notify_all()
        # Who comes too late finds nobody, and starts the machine again.
        self._reception.close(2)
        shutil.rmtree(self.machine.run_directory, ignore_errors=True)

    def _tell(self, text: str) -> None:
        """Progress, for whoever waits."""
        with self._changed:
            self._progress.append(text)
            self._changed.notify_all()

    # ---- whoever connects ----

    def _receive(self, stream: socket.socket, request: dict[str, Any]) -> None:
        """Serve one connection, and tell what goes wrong."""
        try:
            self._answer(stream, request)
        except WherryError as error:
            stream.sendall(control({"error": to_json(error)}))
            self._told.set()

    def _answer(self, stream: socket.socket, request: dict[str, Any]) -> None:
        operation = request.get("op")
        if operation == "state":
            stream.sendall(control({"event": "state", **self._describe()}))
        elif operation == "stop":
            self._stop(force=bool(request.get("force")))
            stream.sendall(control({"event": "stopped"}))
        elif operation in ("wait", "command"):
            if authorities := request.get("authorities"):
                # Known before the guest is told for the first time, it is told but once.
                self._authorities[str(authorities)] = None
            if not self._wait_until_up(stream) or self._gives_way(stream, request.get("version")):
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
            "state": "unresponsive" if self._trouble and self._state == "running" else self._state,
            "accelerator": attempt.accelerator if attempt else "",
            "cpus": attempt.cpus if attempt else 0,
            "pid": attempt.process.pid if attempt else 0,
            "ssh_port": attempt.ssh_port if attempt else 0,
            "commands": self._commands,
            "running": self._running,
        }

    def _stop(self, *, force: bool) -> None:
        """Have the machine stop, and wait until it has."""
        with self._changed:
            # What has not come up has nothing to lose.
            at_once = force or self._state == "starting"
            if self._state in ("starting", "running"):
                self._state = "stopping"
            self._changed.notify_all()
            if self._boot is not None and at_once:
                self._boot.cancel()
            self._changed.wait_for(lambda: self._state in ("stopped", "failed"))

    def _wait_until_up(self, stream: socket.socket) -> bool:
        """Tell `stream` how the start goes; False where the machine is about to end.

        Raises what keeps the start from ending well.
        """
        told = 0
        was_starting = self._state == "starting"
        while True:
            with self._changed:
                while self._state == "starting" and len(self._progress) == told:
                    self._changed.wait()
                texts, told = self._progress[told:], len(self._progress)
                state, error = self._state, self._error
            if state == "running":
                # A guest that is only silent may answer all the same.
                if self._trouble and self._boot is not None and self._boot.is_mute():
                    raise self._does_not_answer(self._trouble)
                return self._is_alive()
            for text in texts if was_starting else ():
                stream.sendall(control({"event": "progress", "text": text}))
            if error is not None:
                raise error
            if state != "starting" and was_starting:
                raise Conflict(f"machine {self.machine.name} was stopped before it was up")
            if state != "starting":
                return False

    def _gives_way(self, stream: socket.socket, version: object) -> bool:
        """Whether the machine ends, so that another release than ours can start its own.

        It does not while something runs in it; who asks is told, the first time.
        """
        if version in (None, __version__):
            return False
        with self._changed:
            if not (self._commands or self._running):
                self._state = "stopping"
                self._changed.notify_all()
                return True
        if version == self._outlived:
            return False
        self._outlived = version
        name = self.machine.name
        text = (
            f"machine {name} is of wherry {__version__}, and this is {version}: it is replaced "
            f"when nothing runs in it any more, or with `wherry machine restart {name}`"
        )
        stream.sendall(control({"event": "progress", "text": text}))
        return False

    def _does_not_answer(self, why: str) -> MachineError:
        name = self.machine.name
        return MachineError(
            f"machine {name} does not answer: {why}",
            hint=f"wherry machine stop --force {name}; the next command starts it again",
        )

    def _is_alive(self) -> bool:
        return self._boot is not None and self._boot.process.poll() is None

    def _carry(self, stream: socket.socket) -> None:
        """Join a command to the guest's runner until either has ended."""
        with self._changed:
            self._commands += 1
        try:
            self._catch_up()
            with self._channels.open(ahead=self._silence() < _BEATS) as channel:
                stream.sendall(control({"event": "joined"}))
                with self._audience.joined(stream) as carried:
                    if self._lack:
                        carried.say({"event": "warning", "text": self._lack})
                    join(stream, channel, carried.pass_on)
        finally:
            with self._changed:
                self._commands -= 1
                self._last_use = time.monotonic()

    def _catch_up(self) -> None:
        """Have the guest see the host as it is. Raises MachineError."""
        assert self._surroundings is not None
        assert self._ways is not None
        with self._diagnosed():
            self._ways.look_after_shares()
            self._mounts.catch_up()
            self._surroundings.catch_up()

    def _open_channel(self, ahead: bool) -> Channel:
        """A channel to the guest's runner, perhaps `ahead` of a command. Raises MachineError."""
        assert self._ways is not None
        with self._diagnosed():
            return self._ways.open_channel(ahead=ahead)

    @contextlib.contextmanager
    def _diagnosed(self) -> Iterator[None]:
        """Errors, which tell more where the guest has not been heard for long."""
        try:
            yield
        except MachineError:
            silent = self._silence()
            if silent < _BEATS or self._boot is None:
                raise
            raise self._does_not_answer(self._boot.diagnosis(silent)) from None

    def _silence(self) -> float:
        """For how many seconds the guest's agent has said nothing."""
        return time.monotonic() - self._last_heard


def _refusal(name: str, error: Exception) -> Refusal:
    from wherry_vm.qemu.accelerator import Refusal

    return Refusal(name=name, reason=str(error))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
