"""wherry is killed at random points, a few hundred times; the next command finds a whole world."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.busybox import busybox_archive
from support.registry import RegistryServer, make_image, registry
from support.settings import as_root, as_rootless

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.cli import Cli
    from support.world import World

__all__ = ["registry"]

_CONTAINER = "victim"

# How long after its start a command is killed, at most: a little longer than it takes.
_LONGEST = {"pull": 0.4, "load": 0.2}
_USUALLY = 0.12

# Where images come from and go to: what is done to them leaves all of them whole.
_IMAGE_COMMANDS = ("load", "pull", "rmi")


def _cases(seed: int, count: int) -> Iterator[tuple[str, str, float]]:
    """(command, whom to kill, when): the same ones for the same seed."""
    chance = random.Random(seed)
    for _ in range(count):
        runs = ["run", "run --rm", "run -d", "run -d --rm", "stop", "rm", "exec"]
        command = chance.choice([*runs, *_IMAGE_COMMANDS, "pull", "pull"])
        yield (
            command,
            chance.choice(["command", "monitor", "init", "one", "all", "all"]),
            chance.uniform(0.002, _LONGEST.get(command, _USUALLY)),
        )


@as_root
@pytest.mark.parametrize("seed", range(6))
def test_next_command_finds_a_whole_world(
    wherry: Cli, world: World, registry: RegistryServer, busybox_image: str, seed: int
) -> None:
    _kill_and_look(wherry, world, registry, _cases(seed, 50))


@as_rootless
def test_next_command_finds_a_whole_world_without_root(
    wherry: Cli, world: World, registry: RegistryServer, busybox_image: str
) -> None:
    _kill_and_look(wherry, world, registry, _cases(99, 50))


def _kill_and_look(
    wherry: Cli,
    world: World,
    registry: RegistryServer,
    cases: Iterator[tuple[str, str, float]],
) -> None:
    archive = f"{world.directory}/busybox.tar"
    with open(archive, "wb") as file:
        file.write(busybox_archive())
    image = f"{registry.host}/app:1"
    layers = [{f"{layer}-{name}": os.urandom(40_000) for name in range(25)} for layer in range(4)]
    registry.put_image("app", "1", make_image(*layers))
    for command, victims, moment in cases:
        case = f"{command}, {victims} killed after {moment * 1000:.0f} ms"
        if command in ("stop", "rm", "exec"):
            wherry("run", "-d", "--network", "none", "--name", _CONTAINER, "busybox", "sleep", "60")
        elif command == "rmi":
            wherry("pull", "--quiet", image)
        process = wherry.start(
            *_argv(command, archive, image),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _wait(process, moment)
        _kill(process, victims, world)
        process.wait(60)

        listed = wherry("ps", "--all", "--quiet", "--no-trunc", check=False)
        assert (listed.returncode, listed.stderr) == (0, ""), case
        if listed.lines:
            removed = wherry("rm", "--force", *listed.lines, check=False)
            assert removed.returncode == 0, f"{case}: {removed.stderr}"
            # One whose command alone was killed may have ended by now.
            assert all("No such container" in line for line in removed.stderr.splitlines()), case
        assert not (left := world.left_without_containers()), f"{case}: {left}"
        if command in _IMAGE_COMMANDS:
            checked = wherry("system", "check", check=False)
            assert (checked.lines, checked.returncode) == ([], 0), f"{case}: {checked.stderr}"
            if command == "pull":
                # So that the next one has something to bring.
                wherry("rmi", "--force", image)
    wherry("pull", "--quiet", image)
    assert wherry("system", "check").lines == []
    wherry("rmi", image)
    assert (
        wherry("run", "--rm", "--network", "none", "busybox", "echo", "alive").stdout == "alive\n"
    )


def _argv(command: str, archive: str, image: str) -> list[str]:
    if command == "pull":
        return ["pull", "--quiet", image]
    if command == "rmi":
        return ["rmi", image]
    if command == "load":
        return ["load", "--quiet", "--input", archive]
    if command == "stop":
        return ["stop", "--time", "0", _CONTAINER]
    if command == "rm":
        return ["rm", "--force", _CONTAINER]
    if command == "exec":
        return ["exec", _CONTAINER, "true"]
    program = ["sleep", "60"] if "-d" in command else ["true"]
    return [*command.split(), "--network", "none", "--name", _CONTAINER, "busybox", *program]


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass


def _kill(process: subprocess.Popen[bytes], victims: str, world: World) -> None:
    """SIGKILL, to as many of those that are meant as there are at this moment."""
    candidates = [pid for pid in world.processes() if pid != os.getpid()]
    names = {pid: _name(pid) for pid in candidates}
    if victims == "command":
        chosen = [process.pid]
    elif victims == "monitor":
        chosen = [pid for pid in candidates if names[pid] == "wherry-monitor"]
    elif victims == "init":
        chosen = [pid for pid in candidates if names[pid] in ("sleep", "true")]
    elif victims == "one":
        chosen = candidates[-1:]
    else:
        chosen = [*candidates, process.pid]
    for pid in chosen:
        if pid == process.pid:
            process.kill()  # it may have ended, and its pid be another's
            continue
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""
