"""The default network where slirp4netns is all there is."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.hosts import OPEN_TUN
from support.memory import wait_settled
from support.requirements import need_tool
from support.settings import as_rootless
from support.waiting import Deadline, wait_gone, wait_until
from wherry_linux.constants import CLONE_NEWNS
from wherry_linux.idmap import find_program
from wherry_linux.userns import in_child

if TYPE_CHECKING:
    from support.cli import Cli
    from support.world import World

pytestmark = [as_rootless]


@pytest.fixture
def box(wherry: Cli, busybox_image: str) -> str:
    """A container that was started where there is no pasta, and starts again when it ends."""
    need_tool("slirp4netns")
    if os.geteuid() != 0:
        pytest.skip("needs root to change what a user finds")
    pasta = find_program("pasta")

    def start() -> str:
        subprocess.run(["sh", "-ec", OPEN_TUN], check=True)
        if pasta is not None:
            subprocess.run(["mount", "--bind", "/dev/null", pasta], check=True)
        made = ("--name", "box", "--restart", "always", busybox_image, "sleep", "1000")
        return wherry("run", "-d", *made).stdout.strip()

    return str(in_child(start, CLONE_NEWNS, None))


def _monitor(world: World, container_id: str) -> int:
    path = Path(world.root, "data/containers", container_id, "state.json")
    return int(json.loads(path.read_text())["MonitorPid"])


def _helper(world: World, container_id: str) -> int:
    path = Path(world.root, "run/containers", container_id, "network.json")
    return int(json.loads(path.read_text())["Helper"]["pid"])


def test_network_lasts_as_long_as_the_container(wherry: Cli, world: World, box: str) -> None:
    monitor, helper = _monitor(world, box), _helper(world, box)
    wait_settled(world.root, Deadline(60, "the monitor to settle"))

    assert "inet 10.0.2.100" in wherry("exec", "box", "ip", "address", "show", "eth0").stdout
    assert Path(f"/proc/{helper}/comm").read_text() == "slirp4netns\n"
    os.kill(monitor, 9)
    wait_gone([helper])


def test_network_of_a_run_ends_with_it(wherry: Cli, world: World, box: str) -> None:
    monitor, first = _monitor(world, box), _helper(world, box)
    wait_settled(world.root, Deadline(60, "the monitor to settle"))

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{monitor}/fd"))

    before = descriptors()

    def inspect(what: str) -> int:
        return int(wherry("inspect", "-f", what, "box").stdout)

    os.kill(inspect("{{.State.Pid}}"), 9)
    wait_until(lambda: inspect("{{.RestartCount}}") == 1, Deadline(60, "the next run"))

    wait_gone([first])
    assert _helper(world, box) != first
    assert "inet 10.0.2.100" in wherry("exec", "box", "ip", "address", "show", "eth0").stdout
    # Who asked it something hangs up a moment after the answer.
    wait_until(lambda: descriptors() <= before, Deadline(60, "the descriptors of the first run"))
