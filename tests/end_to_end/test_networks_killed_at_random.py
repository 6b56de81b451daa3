"""Kills at any moment while containers with ports come and go leave nothing for long."""

from __future__ import annotations

import os
import random
import select
import signal
from typing import TYPE_CHECKING

import pytest

from support.settings import as_root
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.cli import Cli
    from support.hosts import PrivateHost
    from support.world import World

pytestmark = as_root


@pytest.mark.parametrize("seed", range(2))
def test_killed_starts_leave_no_rule_address_or_link(
    wherry: Cli, world: World, host: PrivateHost, busybox_image: str, seed: int
) -> None:
    chosen = random.Random(seed)
    wherry("network", "create", "--subnet", "10.77.0.0/29", "small")
    run = ("run", "-d", "--network", "small", "-p", "8080:80", busybox_image, "sleep", "60")

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
    listed = host.run("nft", "list", "table", "inet", "wherry")
    assert "8080" not in listed
    assert wherry("network", "inspect", "--format", "{{len .Containers}}", "small").stdout == "0\n"

    def only_bridges() -> bool:
        return not {name for name in host.links() if name.startswith("wherry") and "-" not in name}

    wait_until(only_bridges, Deadline(60, "the interfaces to go with their namespaces"))
