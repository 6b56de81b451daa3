"""From a machine that is off to a guest that has said it is ready.

An accelerator is believed when the guest has spoken under it. One that lets QEMU start and
then shows no sign of the guest is left for the next, in the end for plain emulation; which
one it was is kept, for this boot of the host, this QEMU and this image.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time

from wherry.errors import CorruptState, MachineError
from wherry.files import make_dir, read_json, remove_file, write_json
from wherry.values import replace, value
from wherry_vm.disk import NEW_DISK, is_new
from wherry_vm.link import with_short_path
from wherry_vm.protocol import COMMAND_PORTS, PAUSE
from wherry_vm.qemu.accelerator import Refusal, candidates, describe
from wherry_vm.qemu.command import Guest, Sockets, command_line, cpu_count
from wherry_vm.qemu.host import boot_id, processor
from wherry_vm.saved import SavedStart, can_save

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry_vm.image import GuestImage
    from wherry_vm.machines import Machine
    from wherry_vm.monitor import Monitor
    from wherry_vm.qemu.binary import Qemu
    from wherry_vm.qemu.host import Host


@value
class Patience:
    """Seconds to wait for the first byte of the console, and for more of it after each.

    `slow` is how much longer the first byte may take where QEMU's monitor answers meanwhile.
    """

    first: float
    next: float
    slow: float


_PATIENCE = {"tcg": Patience(first=20, next=60, slow=60)}
# Under an accelerator that works the guest speaks at once, however busy the host is.
_ACCELERATED = Patience(first=4, next=15, slow=0)


_LONGEST_CONSOLE = 1 << 20


class Silent(Exception):
    """The guest showed no sign of life under an accelerator."""


class Cancelled(Exception):
    """The machine is to stop before it has come up."""


class Boot:
    """One attempt to start QEMU for a machine, and what listens for it."""

    def __init__(
        self, machine: Machine, host: Host, qemu: Qemu, image: GuestImage, accelerator: str
    ) -> None:
        self.machine = machine
        self.accelerator = accelerator
        self.cpus = cpu_count(qemu, accelerator, min(machine.settings.cpus, host.cpus))
        self.ssh_port = 0
        self.monitor: Monitor | None = None
        self._is_cancelled = False
        self.qmp_listener = _listen(machine, "qmp.sock")
        self.events_listener = _listen(machine, "events.sock")
        self.command_listeners = _listen_for_all(machine, "command", COMMAND_PORTS)
        self.share_listeners = _listen_for_all(machine, "share", len(machine.shares()))
        # Where a start of this kind is saved, and whether this one goes on from there.
        self.saved: SavedStart | None = None
        self.resumes = False
        self.process = self._start(host, qemu, image)

    def _start(self, host: Host, qemu: Qemu, image: GuestImage) -> subprocess.Popen[bytes]:
        machine = self.machine
        remove_file(machine.file("console.log"))
        guest = self._guest(image)
        words = command_line(host, qemu, self.accelerator, guest)
        if can_save(self.accelerator):
            files = (path for _, path in guest.firmware)
            self.saved = SavedStart(machine, [*_programs(qemu, image), processor(), words], files)
            self.resumes = self.saved.is_there()
        if self.resumes:
            words = command_line(host, qemu, self.accelerator, replace(guest, resumes=True))
        with open(machine.file("qemu.log"), "wb") as log:
            return subprocess.Popen(
                words,
                cwd=machine.run_directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                creationflags=0x08000000 if sys.platform == "win32" else 0,  # no window
            )

    def _guest(self, image: GuestImage) -> Guest:
        machine = self.machine
        pauses = can_save(self.accelerator)
        options = image.kernel_options(self.accelerator)
        return Guest(
            name=machine.name,
            kernel=image.kernel,
            initrd=image.initramfs,
            root=image.root,
            data=machine.file("data.img"),
            options=(*options, PAUSE) if pauses else options,
            firmware=_firmware(machine, pauses=pauses),
            console=machine.file("console.log"),
            cpus=self.cpus,
            memory=machine.settings.memory,
            sockets=Sockets(
                qmp=_address(self.qmp_listener),
                events=_address(self.events_listener),
                commands=tuple(map(_address, self.command_listeners)),
                shares=tuple(map(_address, self.share_listeners)),
                unix=hasattr(socket, "AF_UNIX"),
            ),
        )

    def connect_monitor(self) -> Monitor:
        """QEMU's monitor. Raises Silent where it says nothing."""
        from wherry_vm.monitor import Monitor

        try:
            self.monitor = Monitor(self.accept(self.qmp_listener, 10))
            self.ssh_port = self.monitor.forwarded_port()
        except MachineError as error:
            self.wait_briefly()
            raise Silent(str(error)) from error
        return self.monitor

    def accept(self, listener: socket.socket, patience: float) -> socket.socket:
        """QEMU's connection to one of our sockets. Raises MachineError where it ended instead."""
        deadline = time.monotonic() + patience
        listener.settimeout(0.1)
        while True:
            try:
                stream, _ = listener.accept()
            except TimeoutError:
                self.check()
                if time.monotonic() > deadline:
                    raise Silent("QEMU does not answer") from None
                continue
            listener.close()
            stream.settimeout(None)
            return stream

    def listen(self, name: str) -> tuple[socket.socket, str]:
        """A further socket for QEMU to connect to, and what QEMU calls it."""
        listener = _listen(self.machine, name)
        return listener, _address(listener)

    def check(self) -> None:
        """Raise MachineError where QEMU has ended, with what it said last; Cancelled where
        it was to."""
        if self._is_cancelled:
            raise Cancelled
        code = self.process.poll()
        if code is not None:
            said = last_line(self.machine.file("qemu.log")) or (
                "it said nothing, and the guest's console last "
                f"{last_line(self.machine.file('console.log'))!r}"
            )
            memory = f"wherry machine set --memory 2g {self.machine.name}"
            raise MachineError(
                f"QEMU ended with exit code {code}: {said}",
                hint=memory if "guest memory" in said else None,
            )

    def wait_briefly(self) -> None:
        """Give a QEMU that is ending the time to end. Raises MachineError where it does."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        self.check()

    def console_size(self) -> int:
        """How many bytes the guest's console has shown."""
        try:
            return os.stat(self.machine.file("console.log")).st_size
        except FileNotFoundError:
            return 0

    def limit_console(self) -> None:
        """Empty the console's log where the guest fills the host's disk with it."""
        if self.console_size() > _LONGEST_CONSOLE:
            with contextlib.suppress(OSError):
                os.truncate(self.machine.file("console.log"), 0)

    def wait_ready(self, is_ready: Callable[[float], bool]) -> None:
        """Wait until `is_ready(seconds)`. Raises Silent where no guest shows in time,
        MachineError where one that spoke does not get there."""
        patience = _PATIENCE.get(self.accelerator, _ACCELERATED)
        size = 0
        deadline = time.monotonic() + patience.first
        latest = deadline + patience.slow
        while not is_ready(0.1):
            self.check()
            self.limit_console()
            now = self.console_size()
            if now != size:
                size, deadline = now, time.monotonic() + patience.next
            elif time.monotonic() > deadline:
                if size or self.is_mute() or time.monotonic() > latest:
                    raise self._silence(bool(size), patience)
                # QEMU is well, and the guest slow to begin.
                deadline = min(time.monotonic() + patience.first, latest)

    def is_mute(self) -> bool:
        """Whether QEMU itself is stuck: a guest that is only slow leaves its monitor alone."""
        return self.monitor is None or self.monitor.is_mute()

    def _silence(self, has_spoken: bool, patience: Patience) -> Exception:
        """What to tell of a console that shows nothing more."""
        if not has_spoken:
            also = ", and QEMU's monitor does not answer" if self.is_mute() else ""
            return Silent(f"the guest's console stays empty{also}")
        return MachineError(
            f"the guest did not become ready: {self.diagnosis(patience.next)}",
            hint=f"all of it: wherry machine console {self.machine.name}",
        )

    def diagnosis(self, seconds: float) -> str:
        """Why nothing has come from the guest for so long, as far as it can be told from here."""
        who = "and so has QEMU's monitor: QEMU is stuck" if self.is_mute() else "and QEMU is well"
        # The console of a guest that went on from a saved start has said nothing.
        said = last_line(self.machine.file("console.log"))
        last = f"; its console said last: {said!r}" if said else ""
        return f"it has been silent for {seconds:.0f} s, {who}{last}"

    def cancel(self) -> None:
        """Have QEMU end at once, and whoever waits for the guest not take that for a failure."""
        self._is_cancelled = True
        self.process.kill()

    def end(self) -> None:
        """Kill QEMU, and see that it is gone and that what was saved of it is whole."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.monitor is not None:
            self.monitor.close()
        listeners = (*self.command_listeners, *self.share_listeners)
        for listener in (self.qmp_listener, self.events_listener, *listeners):
            listener.close()
        if self.saved is not None:
            self.saved.settle()


def order(
    machine: Machine, host: Host, qemu: Qemu, image: GuestImage
) -> tuple[list[str], list[Refusal]]:
    """The accelerators to try; what is known of earlier starts goes first."""
    names, refusals = candidates(host)
    try:
        verdict = read_json(machine.file("accelerator.json"), {"name!": str})
    except (FileNotFoundError, CorruptState):
        return names, refusals
    if verdict.get("key") == _key(qemu, image) and verdict.get("name") in names:
        for name in names[: names.index(verdict["name"])]:
            refusals.append(Refusal(name=name, reason=str(verdict.get("reason"))))
        names = names[names.index(verdict["name"]) :]
    return names, refusals


def remember(
    machine: Machine, qemu: Qemu, image: GuestImage, name: str, refusals: list[Refusal]
) -> None:
    """Keep which accelerator the guest has spoken under."""
    reason = refusals[-1].reason if refusals else ""
    write_json(
        machine.file("accelerator.json"),
        {"key": _key(qemu, image), "name": name, "reason": reason},
    )


def _firmware(machine: Machine, *, pauses: bool) -> tuple[tuple[str, str], ...]:
    """What the guest is told at its start; of its disk, when it goes on, where it pauses."""
    files = {"authorized_keys": "key.pub", "host_key": "host_key"}
    if not pauses and is_new(machine):
        files["disk"] = NEW_DISK
    return tuple((name, machine.file(file)) for name, file in files.items())


def _key(qemu: Qemu, image: GuestImage) -> list[Any]:
    """What a verdict holds for."""
    return [boot_id(), *_programs(qemu, image)]


def _programs(qemu: Qemu, image: GuestImage) -> list[Any]:
    """Which QEMU runs which image."""
    status = os.stat(qemu.path)
    return [qemu.path, qemu.shown, int(status.st_mtime), image.digest]


def slow_because(accelerator: str, refusals: list[Refusal]) -> str:
    """The one line that tells why a machine is slow; "" where it is not."""
    return describe(refusals) if accelerator == "tcg" else ""


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 that nothing listens on at the moment."""
    with socket.socket(type=kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listen(machine: Machine, name: str) -> socket.socket:
    """A socket for QEMU to connect to; a port where the system has no UNIX sockets."""
    make_dir(machine.run_directory)
    if not hasattr(socket, "AF_UNIX"):
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
    else:
        remove_file(os.path.join(machine.run_directory, name))
        listener = socket.socket(socket.AF_UNIX)
        with_short_path(machine.run_directory, name, listener.bind)
    listener.listen(1)
    return listener


def _listen_for_all(machine: Machine, kind: str, count: int) -> list[socket.socket]:
    """So many sockets of a kind; none where others could connect to them: see shares.mounts."""
    if not hasattr(socket, "AF_UNIX"):
        return []
    return [_listen(machine, f"{kind}{each}.sock") for each in range(count)]


def _address(listener: socket.socket) -> str:
    """What QEMU, in the run directory, calls a listener."""
    name = listener.getsockname()
    return os.path.basename(name) if isinstance(name, str) else str(name[1])


def last_line(path: str) -> str:
    """The last line of a log that says something, without what only terminals understand."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        shown = "".join(each for each in line if each.isprintable()).strip()
        if shown:
            return shown
    return ""
