"""A build that is ended from outside ends its steps, and leaves the cache good."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from support.building import NO_NETWORK, build, context
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from support.building import Build
    from support.cli import Cli
    from support.world import World

__all__ = ["build", "context"]


@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGKILL", -9)]
)
def test_a_signal_ends_the_steps_too(
    wherry: Cli, world: World, build: Build, context: Path, name: str, code: int
) -> None:
    """The world sees at the end of the test that no process and no mount is left."""
    build("FROM busybox\nRUN echo before\n")
    text = (context / "Dockerfile").read_text()
    (context / "Dockerfile").write_text(f"{text}RUN echo now; sleep 100\n")
    process = wherry.start("build", NO_NETWORK, "--progress=plain", str(context))
    assert process.stderr is not None
    while not process.stderr.readline().endswith(b" now\n"):
        assert process.poll() is None

    process.send_signal(getattr(signal, name))

    process.communicate(timeout=60)
    assert process.returncode == code
    wait_until(lambda: not world.processes(), Deadline(30, "the steps to end"))
    assert wherry("ps", "--all", "--quiet").stdout == ""
    again = build("FROM busybox\nRUN echo before\nRUN echo after\n")
    assert "CACHED" in again.stderr.split("RUN echo before")[1]
