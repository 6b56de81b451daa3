"""The host's ends of the ports for commands: who may use which one when, and who still speaks."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest

from support.waiting import Deadline, wait_until
from wherry.container.wire import STDOUT, frame
from wherry.errors import MachineError
from wherry_vm.command_ports import CommandPorts, PortChannel
from wherry_vm.link import receive_exactly
from wherry_vm.protocol import CHUNK, END, OPEN

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such ports")

OPENED, ENDED = frame(OPEN, b""), frame(END, b"")


@pytest.fixture
def guest() -> Iterator[tuple[CommandPorts, list[socket.socket]]]:
    """Two ports, on which the runner listens, and its ends of them."""
    pairs = [socket.socketpair() for _ in range(2)]
    ports = CommandPorts([ours for ours, _ in pairs])
    ports.open([0, 1])
    yield ports, [theirs for _, theirs in pairs]
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


def test_a_port_is_free_again_when_both_sides_have_ended(
    guest: tuple[CommandPorts, list[socket.socket]],
) -> None:
    ports, (runner, _) = guest
    channel, other = _taken(ports), _taken(ports)
    runner.sendall(OPENED + frame(STDOUT, b"said"))

    assert channel.recv(CHUNK) == frame(STDOUT, b"said")
    channel.sendall(b"request")
    channel.end()
    channel.sendall(b"what comes too late")
    assert ports.take() is None, "the runner may still read what was for it"
    # What it says after our end nobody hears, and its end comes in pieces.
    runner.sendall(frame(STDOUT, b"unheard") + ENDED[:2])
    runner.sendall(ENDED[2:])
    assert channel.recv(CHUNK) == b""
    expected = OPENED + b"request" + ENDED
    assert receive_exactly(runner, len(expected)) == expected
    again = _taken(ports)
    runner.sendall(OPENED + frame(STDOUT, b"next"))
    assert again.recv(CHUNK) == frame(STDOUT, b"next")
    other.close()


def test_what_nobody_reads_any_more_does_not_keep_a_port(
    guest: tuple[CommandPorts, list[socket.socket]],
) -> None:
    ports, (runner, _) = guest
    channel, _ = _taken(ports), _taken(ports)
    channel.close()
    runner.sendall(OPENED + 100 * frame(STDOUT, bytes(CHUNK)) + ENDED)

    wait_until(lambda: ports.take() is not None, Deadline(60, "the port to be free"))


def test_a_port_that_is_lost_is_not_taken_again(
    guest: tuple[CommandPorts, list[socket.socket]],
) -> None:
    ports, runners = guest
    channel = _taken(ports)
    runners[0].sendall(OPENED)
    channel.confirm()
    assert channel.is_open()
    ports.lose([0])

    assert not channel.is_open()
    assert channel.recv(CHUNK) == b""
    channel.close()
    _taken(ports)
    assert ports.take() is None


def test_without_a_number_all_are_lost(guest: tuple[CommandPorts, list[socket.socket]]) -> None:
    ports, _ = guest
    ports.lose([])

    assert ports.take() is None


def test_a_guest_that_speaks_out_of_turn_gets_no_port_twice(
    guest: tuple[CommandPorts, list[socket.socket]],
) -> None:
    ports, (runner, _) = guest
    channel, _ = _taken(ports), _taken(ports)
    ports.open([0, 0, 1, -1, 7])
    runner.sendall(OPENED + ENDED)

    assert channel.recv(CHUNK) == ENDED
    assert channel.recv(CHUNK) == b""
    channel.close()
    assert ports.take() is None


def test_a_runner_that_is_gone_is_an_error(
    guest: tuple[CommandPorts, list[socket.socket]],
) -> None:
    ports, (runner, _) = guest
    channel = _taken(ports)
    runner.close()

    with pytest.raises(MachineError, match="cannot reach the runner in the guest"):
        channel.confirm()


def _taken(ports: CommandPorts) -> PortChannel:
    channel = ports.take()
    assert channel is not None
    return channel
