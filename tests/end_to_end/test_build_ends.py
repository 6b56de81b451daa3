"""A build that is ended from outside ends its steps, and leaves the cache good."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.building import NO_NETWORK, build, context
from support.settings import on_linux
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    import subprocess

    from support.building import Build
    from support.cli import Cli
    from support.world import World

__all__ = ["build", "context"]


def start(wherry: Cli, context: Path) -> subprocess.Popen[bytes]:
    """The build of the last one's steps, and of one more that says `now` and stays."""
    text = (context / "Dockerfile").read_text()
    (context / "Dockerfile").write_text(f"{text}RUN echo now; sleep 100\n")
    return wherry.start("build", NO_NETWORK, "--progress=plain", str(context), new_session=True)


@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGKILL", -9)]
)
def test_a_signal_ends_the_steps_too(
    wherry: Cli, world: World, build: Build, context: Path, name: str, code: int
) -> None:
    """The world sees at the end of the test that no process and no mount is left."""
    build("FROM busybox\nRUN echo before\n")
    process = start(wherry, context)
    assert process.stderr is not None
    while not process.stderr.readline().endswith(b" now\n"):
        assert process.poll() is None

    process.send_signal(getattr(signal, name))

    process.communicate(timeout=60)
    assert process.returncode == code
    wait_until(lambda: not world.processes(), Deadline(60, "the steps to end"))
    assert wherry("ps", "--all", "--quiet").stdout == ""
    again = build("FROM busybox\nRUN echo before\nRUN echo after\n")
    assert "CACHED" in again.stderr.split("RUN echo before")[1]


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGKILL", -9)])
def test_a_build_behind_an_ampersand_ends_with_its_steps(
    wherry: Cli, world: World, build: Build, context: Path, name: str, code: int
) -> None:
    """Shells without job control have what is there ignore ctrl-c."""
    build("FROM busybox\n")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start(wherry, context)
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stderr is not None
    while not process.stderr.readline().endswith(b" now\n"):
        assert process.poll() is None

    process.send_signal(signal.SIGINT)
    process.send_signal(getattr(signal, name))

    process.communicate(timeout=60)
    assert process.returncode == code
    wait_until(lambda: not world.processes(), Deadline(60, "the steps to end"))


@on_linux
@pytest.mark.parametrize("victims", ["step", "group"])
def test_what_a_killed_step_has_begun_is_removed_by_the_next_who_looks(
    wherry: Cli, world: World, build: Build, context: Path, victims: str
) -> None:
    build("FROM busybox\n")
    process = start(wherry, context)
    assert process.stderr is not None
    while not process.stderr.readline().endswith(b" now\n"):
        assert process.poll() is None

    if victims == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        (step,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(step), signal.SIGKILL)

    _, errors = process.communicate(timeout=60)
    assert victims == "group" or (process.returncode, b"was killed" in errors) == (1, True)
    if victims == "group":

        def is_removed() -> bool:
            assert wherry("ps", "--all", "--quiet").stdout == ""
            return not world.processes()

        # Who looks while the others are still dying finds them alive.
        wait_until(is_removed, Deadline(60, "the steps to end"))
    assert world.left_without_containers() == []
