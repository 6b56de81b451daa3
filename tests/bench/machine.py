"""The machine of `--backend vm`, beside a Debian with podman under the same QEMU."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from bench import cgroups, engines
from bench.measure import CannotMeasure, Comparison, compare, timed
from bench.peer import Peer
from support.busybox import busybox_archive
from support.guest_images import guest_image
from wherry_vmimage.guest.wheel import build_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.measure import Sample
    from support.accounts import Account

_RUN = ("run", "--rm", "busybox", "true")
_IDLE = ("run", "--detach", "--name=idle", "busybox", "sleep", "1000000")
_EXEC = ("exec", "idle", "true")

_FEW = 3
"""Samples of what takes long."""
_SOME = 5
_MANY = 20
_WATCHED = 30
_USED_MEMORY = "/MemTotal/ { t = $2 } /MemAvailable/ { print (t - $2) / 1024 }"
_SETTLED = 10
"""Seconds until a machine that has just started is idle."""


class Machine(engines.Wherry):
    """wherry with its containers in a machine."""

    def prepare(self, busybox: str) -> None:
        """Make the machine, which starts, and has the image busybox."""
        self.environment |= {
            "WHERRY_BACKEND": "vm",
            "WHERRY_GUEST": guest_image(),
            "WHERRY_ROOT": f"{self.directory}/r",
        }
        self("machine", "init", "--idle", "never", "--share", f"{self.directory}/home")
        self("load", "--input", busybox)

    def qemu(self) -> int:
        """Its process."""
        return int(self.output("machine", "inspect", "--format={{.Pid}}"))


class Ground:
    """The two guests, each made when the first case asks for it, once."""

    def __init__(
        self, directory: str, account: Account, busybox: str, stack: contextlib.ExitStack
    ) -> None:
        self._directory = directory
        self._account = account
        self._busybox = busybox
        self._stack = stack
        self._failure = ""

    @functools.cached_property
    def ours(self) -> Machine:
        if self._failure:
            raise CannotMeasure(self._failure)
        machine = Machine(f"{self._directory}/vm", self._account, cgroups.host_view())
        self._stack.callback(self._remove, machine)
        try:
            machine.prepare(self._busybox)
        except CannotMeasure as error:
            self._failure = str(error)
            raise
        return machine

    @functools.cached_property
    def peer(self) -> Peer | None:
        """It runs; None where it takes no part."""
        try:
            return self._start_peer()
        except (CannotMeasure, OSError) as error:
            print(f"{Peer.name} takes no part: {error}")
            return None

    def _start_peer(self) -> Peer:
        # Its processors and memory are our own machine's.
        words = Path(f"/proc/{self.ours.qemu()}/cmdline").read_text().split("\0")
        machine = [words[0]]
        for option in ("-machine", "-accel", "-cpu", "-smp", "-m"):
            machine += [option, words[words.index(option) + 1]]
        peer = Peer(f"{self._directory}/peer", machine)
        self._stack.callback(peer.kill)
        peer.start()
        peer.wait()
        peer("podman", "load", given=busybox_archive())
        return peer

    @staticmethod
    def _remove(machine: Machine) -> None:
        machine("machine", "rm", "--force", "default")


def cold(ground: Ground, rounds: int) -> Iterator[Comparison]:
    """From a machine that is off to the end of `run --rm busybox true`."""
    ours, peer = ground.ours, ground.peer

    def our_start() -> float:
        ours("machine", "stop")
        return timed(lambda: ours(*_RUN))

    contestants: dict[str, Sample] = {"wherry": our_start}
    if peer is not None:
        contestants[peer.name] = lambda: _start_of(peer)
    yield compare("machine, cold start and run", contestants, min(_FEW, rounds), warm=False)


def _start_of(peer: Peer) -> float:
    peer.stop()
    return timed(peer.start, peer.wait, lambda: peer("podman", *_RUN))


def commands(ground: Ground, rounds: int, native: engines.Engine) -> Iterator[Comparison]:
    """Commands in a machine that runs, as their user waits for them."""
    ours, peer = ground.ours, ground.peer
    everyone: dict[str, Callable[..., None]] = {"wherry": ours}
    if peer is not None:
        everyone[peer.name] = lambda *argv: peer("podman", *argv)
    # The peer takes ten seconds for a run.
    rounds = min(_SOME, rounds)

    def compared(title: str, *argv: str) -> Comparison:
        contestants = {
            name: functools.partial(timed, functools.partial(each, *argv))
            for name, each in everyone.items()
        }
        return compare(f"machine, {title}", contestants, rounds)

    yield compared("run", *_RUN)
    everyone["wherry, native"] = native
    try:
        for each in everyone.values():
            each(*_IDLE)
        yield compared("exec", *_EXEC)
        yield compared("ps", "ps")
    finally:
        for each in everyone.values():
            with contextlib.suppress(CannotMeasure):
                each("rm", "--force", "idle")
    yield compare("machine, 20 runs at once", {"wherry": lambda: _many(ours)}, min(_FEW, rounds))


def _many(machine: Machine) -> float:
    def all_of_them() -> None:
        with ThreadPoolExecutor(_MANY) as pool:
            list(pool.map(lambda _: machine(*_RUN), range(_MANY)))

    return timed(all_of_them)


def idle(ground: Ground) -> Iterator[Comparison]:
    """What a machine costs that nobody uses, from a fresh start on."""
    ours = ground.ours
    ours("machine", "restart")
    time.sleep(_SETTLED)
    before = _processor_seconds(ours.qemu())
    time.sleep(_WATCHED)
    share = (_processor_seconds(ours.qemu()) - before) / _WATCHED * 100
    yield _single("machine, QEMU's processor when idle", "%", share)
    used = ours.output("machine", "ssh", "default", "awk", _USED_MEMORY, "/proc/meminfo")
    yield _single("machine, memory in use when idle", "MB", float(used))


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def image() -> Iterator[Comparison]:
    """The guest image as its wheel carries it."""
    with tempfile.TemporaryDirectory() as directory:
        wheel = build_wheel(guest_image(), directory)
        yield _single("machine, guest image compressed", "MB", os.path.getsize(wheel) / 1e6)


def files_and_ports(ground: Ground, rounds: int) -> Iterator[Comparison]:
    """What `wherry machine bench` measures."""
    samples: dict[tuple[str, str], dict[str, list[float]]] = {}
    for _ in range(min(_FEW, rounds)):
        for line in ground.ours.output("machine", "bench", "--format=json").splitlines():
            row = json.loads(line)
            case = samples.setdefault((row["Measure"], row["Unit"]), {})
            case.setdefault(row["Where"], []).append(row["Value"])
    for (name, unit), found in samples.items():
        yield Comparison(title=f"machine bench, {name}", unit=unit, samples=found)


def _single(title: str, unit: str, value: float) -> Comparison:
    return Comparison(title=title, unit=unit, samples={"wherry": [value]})
