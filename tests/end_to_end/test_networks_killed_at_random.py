"""Kills, and much at once, while containers on networks come and go, leave nothing for long."""

from __future__ import annotations

import os
import random
import select
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from support.settings import on_linux
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.cli import Cli
    from support.hosts import PrivateHost
    from support.world import World

pytestmark = on_linux


@pytest.mark.parametrize("network", ["small", "bridge"])
@pytest.mark.parametrize("seed", range(2))
def test_killed_starts_leave_no_rule_address_or_link(
    wherry: Cli, world: World, host: PrivateHost, busybox_image: str, seed: int, network: str
) -> None:
    chosen = random.Random(seed)
    wherry("network", "create", "--subnet", "10.77.0.0/29", "small")
    run = ("run", "-d", "--network", network, "-p", "8080:80", busybox_image, "sleep", "60")

    for _ in range(8):
        process = wherry.start(*run)
        select.select([], [], [], chosen.uniform(0, 0.4))
        others = world.processes()
        chosen.shuffle(others)
        for pid in [process.pid, *others]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.communicate()
    for name in wherry("ps", "--all", "--quiet").lines:
        wherry("rm", "--force", name)

    assert wherry("run", "--rm", *run[2:-2], "true").returncode == 0
    assert wherry("network", "inspect", "--format", "{{len .Containers}}", network).stdout == "0\n"
    if wherry.account.name != "root":
        # The helpers and the namespace that they lead out of go with the last container.
        wait_until(lambda: not world.processes(), Deadline(60, "all processes to end"))
        return
    assert "8080" not in host.run("nft", "list", "table", "inet", "wherry")
    wait_until(lambda: only_bridges(host), Deadline(60, "the interfaces to go"))


def only_bridges(host: PrivateHost) -> bool:
    """Whether no container has an interface: those go a moment after its namespace."""
    return not {name for name in host.links() if name.startswith("wherry") and "-" not in name}


def test_networks_come_and_go_under_load(
    wherry: Cli, world: World, host: PrivateHost, busybox_image: str
) -> None:
    idle = ("sleep", "1000000")
    for name in ("one", "two"):
        wherry("network", "create", name)

    def live(name: str) -> None:
        for _ in range(3):
            wherry("run", "-d", "--name", name, "--network", "one", busybox_image, *idle)
            wherry("network", "connect", "two", name)
            wherry("exec", name, "ping", "-c", "1", "-W", "20", name)
            wherry("network", "disconnect", "one", name)
            wherry("rm", "--force", name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(live, [f"box{number}" for number in range(4)]))

    for name in ("one", "two"):
        shown = wherry("network", "inspect", "--format", "{{len .Containers}}", name)
        assert shown.stdout == "0\n"
        wherry("network", "rm", name)
    wait_until(lambda: not world.processes(), Deadline(60, "all processes to end"))
    wait_until(lambda: only_bridges(host), Deadline(60, "the interfaces to go"))
