"""Networks that many join and leave at once: afterwards nothing of it is left."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from support.networks import IDLE
from support.settings import as_root
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.cli import Cli
    from support.hosts import PrivateHost

pytestmark = as_root

_WORKERS, _ROUNDS = 4, 3


def test_joining_and_leaving_at_once_leaves_nothing(
    wherry: Cli, host: PrivateHost, wherry_root: str, busybox_image: str
) -> None:
    wherry("network", "create", "--subnet", "10.77.0.0/28", "one")
    wherry("network", "create", "--ipv6", "--subnet", "10.78.0.0/28", "two")
    before = _left(host, wherry_root)

    def work(number: int) -> None:
        name, port = f"box-{number}", f"{8080 + number}:80"
        for _ in range(_ROUNDS):
            run = ("run", "-d", "--name", name, "--network", "one", "-p", port, busybox_image)
            wherry(*run, *IDLE)
            wherry("network", "connect", "--alias", f"alias-{number}", "two", name)
            wherry("port", "add", name, f"{9080 + number}:81")
            wherry("network", "disconnect", "one", name)
            wherry("network", "connect", "one", name)
            wherry("rm", "-f", name)

    with ThreadPoolExecutor(_WORKERS) as pool:
        list(pool.map(work, range(_WORKERS)))

    assert (
        wherry("network", "inspect", "-f", "{{len .Containers}}", "one", "two").lines == ["0"] * 2
    )
    wait_until(lambda: _left(host, wherry_root) == before, Deadline(60, "everything to be gone"))


def _left(host: PrivateHost, root: str) -> tuple[set[str], str, list[str]]:
    """The links, the rules with what is in their sets, and the leases."""
    rules = re.sub(r"packets \d+ bytes \d+", "", host.run("nft", "list", "ruleset"))
    leases = [
        name
        for _, _, names in os.walk(f"{root}/run/networks")
        for name in names
        if not name.startswith("last")
    ]
    return host.links(), rules, leases
