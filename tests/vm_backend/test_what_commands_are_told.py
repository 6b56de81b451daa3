"""What the supervisor says to a command, between two frames of the guest's."""

from __future__ import annotations

import socket

from wherry.container.wire import CONTROL, STDOUT, Parser, control, frame
from wherry_vm.carrying import Audience, Carried
from wherry_vm.link import Link
from wherry_vm.starter import ask


def test_a_message_waits_for_the_end_of_a_frame() -> None:
    ours, theirs = socket.socketpair()
    whole = frame(STDOUT, b"output") + frame(STDOUT, b"")
    with ours, theirs:
        carried = Carried(ours)
        carried.pass_on(whole[:3])
        carried.say({"event": "warning"})
        for at in range(3, len(whole)):
            carried.pass_on(whole[at : at + 1])
        frames = Parser().feed(theirs.recv(4096))

    assert frames[0] == (STDOUT, b"output")
    assert sorted(kind for kind, _ in frames) == [STDOUT, STDOUT, CONTROL]


def test_whoever_comes_next_hears_what_nobody_was_there_for() -> None:
    audience = Audience()
    audience.warn("a port is taken")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with audience.joined(ours):
            said = theirs.recv(4096)
        with audience.joined(ours):
            ours.shutdown(socket.SHUT_WR)
            more = theirs.recv(4096)

    assert said == control({"event": "warning", "text": "a port is taken"})
    assert more == b""


def test_a_warning_that_comes_with_the_answer_is_told() -> None:
    told: list[str] = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        joined = control({"event": "joined"})
        theirs.sendall(joined + control({"event": "warning", "text": "the disk is full"}))

        answer = ask(Link(ours), {"op": "command"}, ("joined",), told.append)

    assert answer == {"event": "joined"}
    assert told == ["the disk is full"]
