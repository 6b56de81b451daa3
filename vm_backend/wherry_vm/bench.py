"""`wherry machine bench`: how fast a machine's files, ports and commands are, as users see it.

Everything goes through commands of this wherry, as a user would say them. What it makes, on
the host and in the machine, is removed in the end, also when it is interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time

from wherry.errors import MachineError
from wherry_vm import filework
from wherry_vm.machines import Share
from wherry_vm.shares import mounts
from wherry_vm.shares.finding import in_force
from wherry_vm.supervisor_command import wherry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from wherry_vm.machines import Machine

    Row = Mapping[str, Any]

_TIMES = 7
"""How often a command is measured."""

_BYTES = 32 << 20
_CHUNK = 1 << 18
_PATIENCE = 60
_OUT, _IN = 5001, 5002

# An image of nothing but the machine's own busybox, which is static.
_IMPORT = """\
set -e
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
mkdir "$d/bin"
cp /proc/self/exe "$d/bin/busybox"
for each in sh nc dd cat true sleep; do ln -s busybox "$d/bin/$each"; done
tar -C "$d" -c . | wherry import - "$1"
"""
# What comes in is answered when all of it is there.
_SERVE = f"""\
nc -ll -p {_OUT} -e dd if=/dev/zero bs=65536 count={_BYTES >> 16} 2>/dev/null &
exec nc -ll -p {_IN} -e sh -c 'cat >/dev/null; echo done'
"""


class Bench:
    """Measurements of one machine, which runs; `report` is told what is being measured."""

    def __init__(self, machine: Machine, ssh_port: int, report: Callable[[str], None]) -> None:
        self._machine = machine
        self._ssh_port = ssh_port
        self._report = report
        self._name = f"wherry-bench-{secrets.token_hex(4)}"
        self._environment = {
            **os.environ,
            "WHERRY_BACKEND": "vm",
            "WHERRY_MACHINE": machine.name,
        }

    def rows(self) -> Iterator[Row]:
        """What was measured, as it comes. Raises MachineError."""
        yield from self._files("disk", self._on_disk)
        share = next((each for each in in_force(self._machine) if not each.readonly), None)
        if share is None:
            self._report("the machine shares no directory that it may write: none is measured")
        else:
            yield from self._shares(share)
        self._report("Measuring commands and ports")
        try:
            self._in_guest("sh", "-c", _IMPORT, "sh", self._name)
            with self._container():
                yield from self._commands()
                yield from self._ports()
        finally:
            self._say("rmi", "--force", self._name, check=False)

    # ---- files ----

    def _files(self, where: str, work: Callable[[], str]) -> Iterator[Row]:
        self._report(f"Measuring files: {where}")
        try:
            found = json.loads(work())
        except OSError as error:
            raise MachineError(f"cannot measure files ({where}): {error}") from error
        for name, (value, unit) in found.items():
            yield _row(name, where, value, unit)

    def _on_disk(self) -> str:
        directory = f"/var/tmp/{self._name}"
        try:
            return self._work(directory, "own")
        finally:
            self._in_guest("rm", "-rf", directory, check=False)

    def _shares(self, share: Share) -> Iterator[Row]:
        """The ways in which SFTP gets to a machine: the one in use, and SSH."""
        if not hasattr(socket, "AF_UNIX"):
            yield from self._files("share, by SSH", lambda: self._on_share(share))
            return
        yield from self._files("share, by virtio-serial", lambda: self._on_share(share))
        yield from self._files("share, by SSH", self._by_ssh)

    def _on_share(self, share: Share) -> str:
        directory = f".{self._name}"
        path = os.path.join(share.source, directory)
        try:
            os.mkdir(path, 0o700)
            filework.prepare(path)
            return self._work(f"{share.target}/{directory}")
        finally:
            _remove(path)

    def _by_ssh(self) -> str:
        """A share as hosts without UNIX sockets have it."""
        from wherry_vm.shares.owners import Owners
        from wherry_vm.shares.server import Server
        from wherry_vm.shares.tree import open_tree
        from wherry_vm.ssh import connect

        with tempfile.TemporaryDirectory(prefix=f"{self._name}-") as base:
            source, target = os.path.join(base, "share"), f"/run/{self._name}"
            os.mkdir(source)
            filework.prepare(source)
            tree = open_tree(source, Owners(os.path.join(base, "owners.db"), source))
            session = connect(self._machine, self._ssh_port)
            try:
                channel = mounts.open_channel(session, Share(source=source, target=target))
                server = threading.Thread(target=Server(channel, tree).run, daemon=True)
                server.start()
                return self._work(target)
            finally:
                self._in_guest("umount", "-l", target, check=False)
                self._in_guest("rmdir", target, check=False)
                session.close()
                tree.close()

    def _work(self, directory: str, *words: str) -> str:
        return self._in_guest("python3", "-m", "wherry_vm.filework", directory, *words)

    # ---- commands ----

    @contextlib.contextmanager
    def _container(self) -> Iterator[None]:
        ports = (f"--publish=127.0.0.1::{each}" for each in (_OUT, _IN))
        run = ("run", "--detach", "--init", "--name", self._name, *ports, self._name)
        try:
            self._say(*run, "sh", "-c", _SERVE)
            yield
        finally:
            self._say("rm", "--force", self._name, check=False)

    def _commands(self) -> Iterator[Row]:
        for name, argv in (
            ("run --rm IMAGE true", ("run", "--rm", self._name, "true")),
            ("exec CONTAINER true", ("exec", self._name, "true")),
            ("ps", ("ps",)),
        ):
            self._say(*argv)
            taken = statistics.median(self._seconds(argv) for _ in range(_TIMES))
            yield _row(name, "command", taken * 1000, "ms")

    def _seconds(self, argv: tuple[str, ...]) -> float:
        began = time.perf_counter()
        self._say(*argv)
        return time.perf_counter() - began

    # ---- ports ----

    def _ports(self) -> Iterator[Row]:
        for name, port, transfer in (("to the host", _OUT, _receive), ("from it", _IN, _send)):
            address = self._say("port", self._name, str(port)).splitlines()[0]
            host, _, number = address.rpartition(":")
            taken = transfer((host, int(number)))
            yield _row(name, "published port", _BYTES / 1e6 / taken, "MB/s")

    # ---- commands of ours ----

    def _in_guest(self, *words: str, check: bool = True) -> str:
        return self._say("machine", "ssh", self._machine.name, *words, check=check)

    def _say(self, *argv: str, check: bool = True) -> str:
        """What a command of this wherry prints. Raises MachineError where it fails."""
        done = subprocess.run(
            wherry(*argv),
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if check and done.returncode:
            said = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
            raise MachineError(f"cannot measure `wherry {' '.join(argv[:2])}`: {said}")
        return done.stdout


def _remove(path: str) -> None:
    """Remove a directory in which an interrupted command of the guest may still make files."""
    deadline = time.monotonic() + _PATIENCE
    while os.path.lexists(path) and time.monotonic() < deadline:
        shutil.rmtree(path, ignore_errors=True)


def _row(name: str, where: str, value: float, unit: str) -> Row:
    return {"Measure": name, "Where": where, "Value": round(value, 1), "Unit": unit}


def _receive(address: tuple[str, int]) -> float:
    """Seconds for all that a container sends, from the first of it on."""
    stream, data = _first_answer(address, b"")
    with stream:
        began = time.perf_counter()
        left = _BYTES - len(data)
        while left and (data := stream.recv(_CHUNK)):
            left -= len(data)
        return time.perf_counter() - began


def _send(address: tuple[str, int]) -> float:
    """Seconds until a container has all that it is sent."""
    _first_answer(address, b"x")[0].close()
    data = bytes(_CHUNK)
    with socket.create_connection(address, timeout=_PATIENCE) as stream:
        began = time.perf_counter()
        for _ in range(_BYTES // _CHUNK):
            stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
        stream.recv(16)
        return time.perf_counter() - began


def _first_answer(address: tuple[str, int], data: bytes) -> tuple[socket.socket, bytes]:
    """A connection that something has come from: QEMU accepts before a container does."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        stream = socket.create_connection(address, timeout=_PATIENCE)
        with contextlib.suppress(OSError):
            if data:
                stream.sendall(data)
                stream.shutdown(socket.SHUT_WR)
            if answer := stream.recv(_CHUNK):
                return stream, answer
        stream.close()
        if time.monotonic() > deadline:
            raise MachineError(f"nothing answers on the published port {address[1]}")
        time.sleep(0.1)
