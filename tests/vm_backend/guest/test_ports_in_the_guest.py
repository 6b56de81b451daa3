"""The runner's end of a port, which many commands have one after the other."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from support.waiting import Deadline, wait_gone, wait_readable, wait_until
from wherry.container.wire import CONTROL, STDOUT, Parser, control, frame
from wherry.lean import load_json
from wherry_vm.protocol import AHEAD, END, OPEN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the guest is a Linux")

NUMBER = 7
OPENED, OPENED_AHEAD, ENDED = (frame(kind, b"") for kind in (OPEN, AHEAD, END))


class PortEnd:
    """The host's end of a port on which a runner listens."""

    def __init__(self, stream: socket.socket, runner: int, losses: int) -> None:
        self.stream = stream
        self.stream.settimeout(60)
        self.runner = runner
        self.losses = losses
        self._parser = Parser()
        self._frames: list[tuple[int, bytes]] = []

    def ask(self, *argv: str, brief: bool = False, op: str = "program") -> None:
        request = {"op": op, "argv": argv, "stdin": False, "terminals": [False] * 3}
        self.stream.sendall(OPENED + control({**request, "environment": {}, "brief": brief}))

    def next(self) -> tuple[int, bytes]:
        """The next frame."""
        while not self._frames:
            data = self.stream.recv(1 << 16)
            assert data, "the port has ended"
            self._frames = self._parser.feed(data)
        return self._frames.pop(0)

    def until_exit(self) -> tuple[bytes, int]:
        """What a command writes, and its exit code."""
        assert self.next() == (OPEN, b"")
        said = b""
        while True:
            kind, payload = self.next()
            if kind == STDOUT:
                said += payload
            elif kind == CONTROL and "code" in (message := load_json(payload)):
                return said, message["code"]


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PortEnd]:
    from wherry_vm.guest.__main__ import listen
    from wherry_vm.guest.runner import Runner

    monkeypatch.setenv("WHERRY_ORIGINS", str(tmp_path / "origins"))
    monkeypatch.setenv("WHERRY_BACKEND", "linux")
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path / "own"))
    ours, theirs = socket.socketpair()
    lost, losses = os.pipe()
    pid = os.fork()
    if pid == 0:
        ours.close()
        os.close(lost)
        Runner(listen(str(tmp_path / "socket")), {NUMBER: theirs.fileno()}, losses).run()
    theirs.close()
    os.close(losses)
    yield PortEnd(ours, pid, lost)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    ours.close()
    os.close(lost)


def test_commands_have_a_port_one_after_the_other(port: PortEnd) -> None:
    for word in ("one", "two"):
        port.ask("sh", "-c", f"echo {word}; exit 3")
        assert port.until_exit() == (word.encode() + b"\n", 3)
        port.stream.sendall(ENDED)
        assert port.next() == (END, b"")


def test_what_comes_before_the_host_ends_is_not_for_the_next_command(port: PortEnd) -> None:
    port.ask("sh", "-c", "exit 4")
    assert port.until_exit() == (b"", 4)
    port.stream.sendall(control({"op": "signal", "name": "SIGINT"}) + ENDED)
    assert port.next() == (END, b"")
    port.ask("sh", "-c", "exit 5")

    assert port.until_exit() == (b"", 5)


def test_a_command_ends_with_its_host(port: PortEnd) -> None:
    port.ask("sh", "-c", "echo $$; exec sleep 1000")
    assert port.next() == (OPEN, b"")
    kind, payload = port.next()
    port.stream.sendall(ENDED)

    assert (kind, port.next()) == (STDOUT, (END, b""))
    wait_gone([int(payload)])


def test_a_brief_command_has_a_port_too(port: PortEnd) -> None:
    port.ask("volume", "inspect", "none", op="run", brief=True)

    assert port.until_exit() == (b"[]\n", 1)
    port.stream.sendall(ENDED)
    assert port.next() == (END, b"")


def test_a_port_that_was_opened_ahead_is_rehearsed_and_may_be_given_back(
    port: PortEnd, tmp_path: Path
) -> None:
    port.stream.sendall(OPENED_AHEAD)
    assert port.next() == (OPEN, b"")
    has_begun = (tmp_path / "origins/rehearsal/data").exists
    wait_until(has_begun, Deadline(60, "a rehearsal"))
    port.stream.sendall(ENDED)
    assert port.next() == (END, b"")
    port.ask("true")

    assert port.until_exit() == (b"", 0)


def test_a_port_whose_server_was_killed_is_lost(port: PortEnd) -> None:
    port.ask("sh", "-c", "echo $PPID $$; exec sleep 1000")
    assert port.next() == (OPEN, b"")
    for pid in port.next()[1].split():
        os.kill(int(pid), signal.SIGKILL)

    wait_readable(port.losses, Deadline(60, "the loss to be told"))
    assert os.read(port.losses, 8) == bytes((NUMBER,))
