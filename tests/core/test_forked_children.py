"""A forked child ends as a child, whenever it is told to end, and gives back what it was given."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from wherry.errors import NotFound, WherryError
from wherry.forked import Child, start

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing forks there")


def _fork_and_interrupt() -> int:
    """A fork in which the child is told to end before it has come back from it."""
    if sys.platform == "win32":
        raise NotImplementedError
    child = os.fork()
    if child == 0:
        signal.raise_signal(signal.SIGINT)
    return child


def test_a_child_that_is_told_to_end_before_it_has_begun_does_not_go_on_as_its_parent() -> None:
    if sys.platform == "win32":
        raise NotImplementedError
    own = os.getpid()
    reader, writer = os.pipe()
    try:
        child = start(lambda: os.write(writer, b"begun"), _fork_and_interrupt)
    finally:
        if os.getpid() != own:
            os.write(writer, b"here I am")
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as said:
        assert said.read() == b""
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130


def test_an_error_of_a_child_is_raised_as_itself() -> None:
    def find() -> None:
        raise NotFound("no such thing", hint="look elsewhere")

    with Child(find) as child, pytest.raises(NotFound, match="no such thing") as raised:
        child.result()

    assert raised.value.hint == "look elsewhere"


def test_a_child_that_was_killed_has_no_answer() -> None:
    with (
        Child(lambda: os.kill(os.getpid(), signal.SIGTERM)) as child,
        pytest.raises(WherryError, match="ended without an answer"),
    ):
        child.result()


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_each_end_of_a_pipe_has_one_owner() -> None:
    before = set(os.listdir("/proc/self/fd"))
    reader, writer = os.pipe()

    with Child(lambda: _open_of(reader, writer), given=[writer], kept=[reader]) as child:
        here = _open_of(reader, writer)
        there = child.result()

    assert (here, there) == ([reader], [writer])
    os.close(reader)
    assert set(os.listdir("/proc/self/fd")) == before


def _open_of(*descriptors: int) -> list[int]:
    return [each for each in descriptors if os.path.exists(f"/proc/self/fd/{each}")]
