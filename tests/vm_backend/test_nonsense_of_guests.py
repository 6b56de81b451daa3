"""What a guest says that has been taken over: an error of one line, or nothing at all."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from wherry.backend import Command
from wherry.builder.context import Context
from wherry.builder.request import BuildRequest
from wherry.builder.sending import offer
from wherry.container.wire import CONTROL, STDOUT, control, frame
from wherry.errors import MachineError, WherryError
from wherry_vm.answers import answer
from wherry_vm.client import Client
from wherry_vm.events import EventChannel
from wherry_vm.link import Link
from wherry_vm.ports import Forwards
from wherry_vm.terminal import open_console

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    "said",
    [
        frame(9, b"to no stream"),
        frame(CONTROL, b"{"),
        frame(CONTROL, b"\xff"),
        frame(CONTROL, b"7"),
        frame(CONTROL, b"[" * 100_000),
        bytes((STDOUT, 255, 255, 255, 255)) + b"x" * 1000,
        control({"event": "exit"}),
        control({"event": "exit", "code": []}),
        control({"event": "taken", "bytes": "many"}),
        control({"event": "ask"}),
        control({"event": "ask", "id": 1, "question": 7}),
        control({"error": 7}),
        control({"error": {"class": "WherryError"}}),
    ],
)
def test_an_answer_to_a_command_that_makes_no_sense_is_an_error(pair: Pair, said: bytes) -> None:
    ours, theirs = pair
    theirs.sendall(said)
    client = Client(
        Link(ours), open_console(), ["ps"], answer=lambda question: {"to": question["ask"]}
    )

    with pytest.raises(MachineError, match="makes no sense"):
        client.run()


def test_a_command_whose_input_cannot_be_read_on_ends(pair: Pair) -> None:
    """The other side would wait for it, and nobody would say anything."""

    class Input:
        def read(self, _: int) -> bytes:
            raise ValueError("there is no more")

    with pytest.raises(WherryError, match="there is no more"):
        Client(Link(pair[0]), open_console(), ["build"], stdin=Input()).run()


@pytest.mark.parametrize(
    "question",
    [
        {"ask": "agent", "name": "other", "message": "AAAAAQs="},
        {"ask": "agent", "name": "default", "message": 7},
        {"ask": "files", "context": 1, "files": [[0, 0]]},
        {"ask": "files", "context": 0, "files": [[0, 7]]},
    ],
)
def test_a_build_answers_for_what_it_has_offered(tmp_path: Path, question: Any) -> None:
    (tmp_path / "file").write_text("x")
    agents = {"default": str(tmp_path / "gone")}
    request = BuildRequest(dockerfile="", context=Context(str(tmp_path)), ssh=agents)
    stdin = offer(request)
    command = Command(argv=("build",), action=lambda _: 0)

    refused = answer(command, {"ask": "agent", "name": "default", "message": "AAAAARM="}, stdin)

    assert set(answer(command, question, stdin)) == {"error"}
    # SSH_AGENTC_REMOVE_ALL_IDENTITIES: SSH_AGENT_FAILURE, without asking the agent.
    assert refused == {"message": "AAAAAQU="}


def test_an_error_of_an_unknown_kind_is_an_error(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(control({"error": {"class": "os", "message": "no", "hint": None, "errno": 0}}))

    with pytest.raises(WherryError, match="no"):
        Client(Link(ours), open_console(), ["ps"]).run()


@pytest.mark.parametrize(
    "question",
    [
        {"ask": "credentials", "registry": "ghcr.io"},
        {"ask": "secret", "name": "other"},
        {"ask": "secret", "name": ["s"]},
        {"ask": "file", "path": "/etc/passwd", "content": ""},
        {"ask": "file", "path": "cid/../other", "content": ""},
        {"ask": "file", "path": "cid", "content": 7},
        {"ask": "everything"},
        {},
        7,
    ],
)
def test_a_command_answers_what_its_own_words_are_about(question: Any) -> None:
    command = Command(argv=("ps",), action=lambda _: 0, secrets={"s": b"secret"}, writes=("cid",))

    answered = answer(command, question)

    assert set(answered) == {"error"}
    assert answer(command, {"ask": "secret", "name": "s"}) == {"content": "c2VjcmV0"}


@pytest.mark.parametrize(
    "line",
    [
        b"x" * (1 << 20), b"[" * 60_000, b"\xff\x00{", b"[]", b"7", b"null",
        b'{"event": "ports"}', b'{"number": "x"}', b'{"number": 1e999}',
    ],
)  # fmt: skip
def test_an_event_that_makes_no_sense_is_passed_over(pair: Pair, line: bytes) -> None:
    ours, theirs = pair
    heard: list[dict[str, Any]] = []
    over = threading.Event()

    def hear(message: dict[str, Any]) -> None:
        if message.get("event") == "over":
            over.set()
        heard.append({"id": message["id"], "number": int(message["number"])})

    EventChannel(ours, hear)
    theirs.sendall(line + b"\n" + json.dumps({"event": "over", "id": 1, "number": 1}).encode())
    theirs.sendall(b"\n")

    assert over.wait(60)


@pytest.mark.parametrize(
    "ports",
    [
        None, 7, [7], [["tcp"]], [["unix", "127.0.0.1", 80]], [["tcp", "localhost", 80]],
        [["tcp", "", 80]], [["tcp", "127.0.0.1:1-10.0.2.2:1", 80]], [["tcp", "::1%lo\n", 80]],
        [["tcp", "127.0.0.1", "80 x"]], [["tcp", "127.0.0.1", 0]], [["tcp", "127.0.0.1", 65536]],
        [["tcp", "127.0.0.1", 80], ["tcp", "127.0.0.1\nquit", 81]],
    ],
)  # fmt: skip
def test_nothing_but_ports_and_addresses_gets_to_qemus_monitor(ports: Any) -> None:
    lines: list[str] = []

    def monitor(line: str) -> str:
        lines.append(line)
        return ""

    answer = Forwards(monitor).answer({"publish": "box", "ports": ports})

    assert "error" in answer
    assert lines == []


def test_what_is_sent_to_a_slow_reader_arrives_whole(pair: Pair) -> None:
    """Also where receiving has a time limit, which the socket knows for both."""
    ours, theirs = pair
    link = Link(ours)
    link.expect_within(0.1)
    data = bytes(range(256)) * 40_000
    sender = threading.Thread(target=link.send, args=(data,))
    sender.start()
    sender.join(0.5)  # it waits for us: there is more than fits
    assert sender.is_alive()

    received = b""
    while len(received) < len(data):
        received += theirs.recv(1 << 20)
    sender.join(60)

    assert received == data
    with pytest.raises(TimeoutError):
        link.receive()
