"""What this host makes of a container's limits: those that it cannot have, or cannot hold.

Imported for containers that have limits only.
"""

from __future__ import annotations

import os

from wherry.container.check import check_processors
from wherry.container.resources import discarded, drop_limits, limits
from wherry.engine.launch import block_devices
from wherry.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.container.store import Container
    from wherry.oci.runtime_spec import LinuxResources
    from wherry.runtime import Runtime


def settle(runtime: Runtime, container_id: str, body: dict[str, Any]) -> list[str]:
    """Complete the limits in `body`, as docker does; the warnings about those that do not hold.

    Raises UsageError for more than the machine has, and Unsupported where docker, too,
    does not run without a limit.
    """
    host = body["HostConfig"]
    group = runtime.cgroup_path(container_id, host.get("CgroupParent") or "")
    if any(host.get(key) for key in ("NanoCpus", "CpusetCpus", "CpusetMems")):
        check_processors(host, os.cpu_count() or 1, *runtime.processors(group))
    asked_for_swap = bool(host.get("MemorySwap"))
    if host.get("Memory") and not asked_for_swap:
        host["MemorySwap"] = 2 * host["Memory"]
    resources: LinuxResources = limits(host, block_devices(host))
    if host.get("NanoCpus") and "cpu" in runtime.missing_controllers(_CPU_TIME, group):
        raise Unsupported(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler "
            "or the cgroup is not mounted",
            hint="no cpu controller of cgroup v2 is available: `wherry doctor` tells why",
        )
    unified = (body.get("Wherry") or {}).get("CgroupConf")
    for name in runtime.missing_controllers({"unified": unified}, group) if unified else ():
        raise Unsupported(
            f"cannot write files of the {name} controller: cgroup v2 has none here",
            hint="`wherry doctor` tells why",
        )
    return [
        discarded(name)
        for name in runtime.missing_controllers(resources, group)
        # Nobody asked for the limit of swap that comes with that of memory.
        if name != "memory.swap.max" or asked_for_swap
    ]


def apply(runtime: Runtime, container: Container, host: Mapping[str, Any]) -> None:
    """Put limits on a running container. Raises Unsupported where a controller is missing."""
    resources = limits(host, block_devices(host))
    group = runtime.cgroup_path(container.id, host.get("CgroupParent") or "")
    missing = runtime.missing_controllers(resources, group)
    drop_limits(resources, [name for name in missing if "." in name])
    if any(resources.values()):
        runtime.limit(container, resources)


_CPU_TIME: LinuxResources = {"cpu": {"quota": 1000}}
