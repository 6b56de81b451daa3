"""What comes back from the processes that `exec` sends into a container, in any order."""

from __future__ import annotations

import os

import pytest

from wherry.errors import WherryError
from wherry_linux.channel import Channel
from wherry_linux.joining import _await_program


def test_terminal_may_come_before_the_pid() -> None:
    ours, theirs = Channel.pair()
    reader, writer = os.pipe()
    theirs.send({"console": True}, reader)
    theirs.send({"pid": 42})
    theirs.close()

    pid, terminal, number = _await_program(ours, has_console=True)

    assert (pid, number) == (42, 0)
    os.write(writer, b"x")
    assert os.read(terminal, 1) == b"x"


def test_failure_may_come_before_the_pid() -> None:
    ours, theirs = Channel.pair()
    os.write(theirs.fileno(), (2).to_bytes(4, "little"))
    theirs.send({"pid": 42})

    assert _await_program(ours, has_console=False)[2] == 2


def test_end_without_a_program_is_told() -> None:
    ours, theirs = Channel.pair()
    theirs.send({"pid": 42})
    theirs.close()

    with pytest.raises(WherryError, match="ended before it was ready"):
        _await_program(ours, has_console=True)
