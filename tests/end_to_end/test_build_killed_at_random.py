"""Builds are killed at random points; the next one finds a whole world and a good cache."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.building import NO_NETWORK, build, context, run
from support.settings import on_linux
from support.waiting import Deadline, wait_gone, wait_until

if TYPE_CHECKING:
    from support.building import Build
    from support.cli import Cli
    from support.world import World

__all__ = ["build", "context"]

pytestmark = on_linux

TEXT = """\
FROM busybox AS one
ARG CASE
COPY . /all/
RUN --mount=type=cache,target=/cache echo $CASE > /case && cp /case /cache/case
FROM busybox AS two
ARG CASE
RUN --mount=target=/ctx cat /ctx/hello > /other && echo $CASE >> /other
FROM one
COPY --from=two /other /from/
WORKDIR /made
"""
# A little longer than it takes.
LONGEST = 1.2
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL", "SIGKILL")


@pytest.mark.parametrize("seed", range(3))
def test_the_next_build_finds_a_whole_world(
    wherry: Cli, world: World, build: Build, context: Path, seed: int
) -> None:
    chance = random.Random(seed)
    build(TEXT, "--build-arg=CASE=first", "-t", "made")
    words = ("build", NO_NETWORK, "--progress=plain", "-t", "other", str(context))
    for number in range(12):
        victims = chance.choice(("command", "group", "one", "all"))
        name, moment = chance.choice(SIGNALS), chance.uniform(0.05, LONGEST)
        case = f"{number}: {name} for {victims} after {moment * 1000:.0f} ms"
        process = wherry.start(
            *words, f"--build-arg=CASE={seed}-{number}", stderr=subprocess.DEVNULL, new_session=True
        )
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            _send(process, victims, getattr(signal, name), world)
        process.communicate(timeout=60)
        # What a step has made that was just begun is removed once it has ended.
        wait_until(lambda: not world.processes(), Deadline(60, "all processes to end"))

        assert wherry("ps", "--all", "--quiet").stdout == "", case
        assert not (left := world.left_without_containers()), f"{case}: {left}"
        if number % 4 == 3:
            made = build(TEXT, f"--build-arg=CASE={seed}-{number}", "-t", "made")
            assert made.returncode == 0, case
            assert run(wherry, "made", "cat", "/case", "/from/other") == (
                f"{seed}-{number}\nhello\n{seed}-{number}\n"
            ), case
            assert run(wherry, "made", "cat", "/all/sub/one") == "one\n", case
            checked = wherry("system", "check", check=False)
            assert (checked.lines, checked.returncode) == ([], 0), f"{case}: {checked.stderr}"
    again = build(TEXT, "--build-arg=CASE=first", "-t", "made").stderr
    assert again.count("CACHED") >= 5
    wherry("system", "prune", "--force", "--all")
    assert not (left := _drafts(world)), left


def _send(
    process: subprocess.Popen[bytes], victims: str, number: signal.Signals, world: World
) -> None:
    """A signal to as many of those that are meant as there are at this moment."""
    if victims == "command":
        process.send_signal(number)
        return
    found = [pid for pid in world.processes() if pid != os.getpid()]
    if victims == "group":
        found = [pid for pid in found if _group(pid) == process.pid]
    elif victims == "one":
        found = found[-1:]
        number = signal.SIGKILL
    for pid in (*found, process.pid):
        if pid == process.pid and victims != "one":
            process.send_signal(number)
        elif pid != process.pid:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
    if number == signal.SIGKILL:
        # One that waits for the disk dies once that has answered.
        wait_gone(pid for pid in found if pid != process.pid)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _drafts(world: World) -> list[str]:
    """What is on its way into the store, although nobody brings anything."""
    data = Path(world.root) / "data"
    return [str(path) for path in (*data.glob("images/partial/*"), *data.glob("**/*.tmp"))]
