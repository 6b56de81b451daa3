"""`wherry update`: new limits for containers that are there."""

from __future__ import annotations

from wherry.backend import Command, execute
from wherry.cli.each import complain, for_each
from wherry.cli.grammar import argument, command, option
from wherry.cli.options import IGNORED, RESOURCES
from wherry.container.check import check_resources
from wherry.container.create import read_restart_policy
from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.container.spec import HostConfig

_KEYS = {
    "blkio_weight": "BlkioWeight",
    "cpu_period": "CpuPeriod",
    "cpu_quota": "CpuQuota",
    "cpu_shares": "CpuShares",
    "cpus": "NanoCpus",
    "cpuset_cpus": "CpusetCpus",
    "cpuset_mems": "CpusetMems",
    "memory": "Memory",
    "memory_reservation": "MemoryReservation",
    "memory_swap": "MemorySwap",
}


@command(
    *RESOURCES,
    option("--restart", help="Restart policy to apply when a container exits"),
    argument("container", nargs=-1),
    examples="""\
  $ wherry update --restart unless-stopped web
  $ wherry update -m 512m --cpus 1.5 web               also while it runs
""",
)
def update(container: tuple[str, ...], restart: str, **values: Any) -> int:
    """Update configuration of one or more containers"""
    changes: HostConfig = {}
    for name, key in _KEYS.items():
        if values[name]:
            changes[key] = values[name]  # type: ignore[literal-required]
    if values["pids_limit"] is not None:
        # As with -1 there is none: 0 says so, too.
        changes["PidsLimit"] = values["pids_limit"] or -1
    for name in sorted(values.keys() & IGNORED.keys()):
        if values[name]:
            complain(f"--{name.replace('_', '-')} does nothing: {IGNORED[name]}")
    if restart:
        changes["RestartPolicy"] = read_restart_policy(restart)
    if not changes:
        raise UsageError(
            "you must provide one or more flags when using this command",
            hint="See 'wherry update --help'.",
        )
    check_resources(changes)
    return execute(
        Command(
            argv=update.argv(container=container, restart=restart, **values),
            action=lambda engine: for_each(
                container, lambda name: engine.containers.update(name, changes)
            ),
        )
    )
