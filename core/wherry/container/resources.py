"""cgroup limits: docker's HostConfig keys as runtime-spec's `linux.resources`."""

from __future__ import annotations

from wherry.container.namespaces import own_section
from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.container.bundle import ContainerFacts, HostDevice
    from wherry.oci.runtime_spec import (
        LinuxBlockIO,
        LinuxCPU,
        LinuxDeviceCgroup,
        LinuxMemory,
        LinuxResources,
    )

_CPU_PERIOD = 100_000

LIMITS = (
    "Memory", "MemoryReservation", "MemorySwap", "NanoCpus", "CpuShares", "CpuPeriod", "CpuQuota",
    "CpusetCpus", "CpusetMems", "PidsLimit", "BlkioWeight", "BlkioWeightDevice",
    "BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps",
)  # fmt: skip
"""The keys of HostConfig that a control group enforces."""


def resources(body: Mapping[str, Any], facts: ContainerFacts) -> LinuxResources:
    """The limits of a container. Raises UsageError."""
    host: Mapping[str, Any] = body.get("HostConfig") or {}
    result = limits(host, facts.block_devices)
    # Device rules are a BPF program that only the host's root may load.
    if not facts.rootless:
        result["devices"] = _device_rules(host, facts.devices)
    if unified := own_section(body).get("CgroupConf"):
        result["unified"] = dict(unified)
    return result


def limits(host: Mapping[str, Any], block_devices: Mapping[str, tuple[int, int]]) -> LinuxResources:
    """What `run` and `update` can both say. Raises UsageError."""
    result: LinuxResources = {}
    if memory := _memory(host):
        result["memory"] = memory
    if cpu := _cpu(host):
        result["cpu"] = cpu
    if pids := host.get("PidsLimit"):
        result["pids"] = {"limit": pids if pids > 0 else -1}
    if block := _block_io(host, block_devices):
        result["blockIO"] = block
    return result


def drop_limits(resources: LinuxResources, controllers: Sequence[str]) -> None:
    """Take out of `resources` what needs `controllers`, which this host has not got."""
    for controller in controllers:
        if controller == "memory":
            resources.pop("memory", None)
        elif controller == "pids":
            resources.pop("pids", None)
        elif controller == "io":
            resources.pop("blockIO", None)
        elif controller == "io.weight":
            for key in ("weight", "weightDevice"):
                (resources.get("blockIO") or {}).pop(key, None)  # type: ignore[misc]
        elif controller == "memory.swap.max":
            (resources.get("memory") or {}).pop("swap", None)
        elif controller in ("cpu", "cpuset"):
            cpu = resources.get("cpu") or {}
            for key in list(cpu):
                if (key in ("cpus", "mems")) == (controller == "cpuset"):
                    del cpu[key]  # type: ignore[misc]
        unified = resources.get("unified") or {}
        for name in [name for name in unified if name.partition(".")[0] == controller]:
            del unified[name]


_TOGETHER = (("Memory", "MemorySwap"), ("NanoCpus", "CpuPeriod", "CpuQuota"))


def changed_limits(host: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `host`, which has `changes` in it, that have to be written anew.

    With what has changed they are those that the kernel keeps in the same file, or that
    mean something together only.
    """
    wanted = dict(changes)
    for keys in _TOGETHER:
        if any(key in changes for key in keys):
            wanted.update((key, host[key]) for key in keys if host.get(key))
    return wanted


def discarded(name: str) -> str:
    """What is said of limits that `name`, a controller or a file of one, would have to enforce."""
    controller, _, file = name.partition(".")
    if not file:
        return (
            f"the {name} limits are discarded: no {name} controller of cgroup v2"
            " is available to this user; `wherry doctor` tells why"
        )
    what = "memory is limited without swap" if controller == "memory" else "weights are discarded"
    return f"{what}: this kernel was built without {name} of cgroup v2"


def _device_rules(
    host: Mapping[str, Any], devices: Sequence[HostDevice]
) -> list[LinuxDeviceCgroup]:
    if host.get("Privileged"):
        return [{"allow": True, "access": "rwm"}]
    return [
        {"allow": False, "access": "rwm"},
        *(_device_rule(device) for device in devices),
        *(parse_device_rule(rule) for rule in host.get("DeviceCgroupRules") or ()),
    ]


def _device_rule(device: HostDevice) -> LinuxDeviceCgroup:
    node = device.device
    return {
        "allow": True,
        "type": node["type"],
        "major": node["major"],
        "minor": node["minor"],
        "access": device.access,
    }


def parse_device_rule(rule: str) -> LinuxDeviceCgroup:
    """`c 13:* rwm` as runtime-spec's rule. Raises UsageError."""
    parts = rule.split()
    if len(parts) == 3 and parts[0] in ("a", "b", "c") and not set(parts[2]) - set("rwm"):
        major, colon, minor = parts[1].partition(":")
        if colon and all(number == "*" or number.isdecimal() for number in (major, minor)):
            parsed: LinuxDeviceCgroup = {"allow": True, "type": parts[0], "access": parts[2]}
            if major != "*":
                parsed["major"] = int(major)
            if minor != "*":
                parsed["minor"] = int(minor)
            return parsed
    raise UsageError(
        f"invalid device cgroup format '{rule}'", hint="it reads TYPE MAJOR:MINOR rwm: c 13:* rw"
    )


def _memory(host: Mapping[str, Any]) -> LinuxMemory:
    memory: LinuxMemory = {}
    if limit := host.get("Memory"):
        memory["limit"] = limit
    if reservation := host.get("MemoryReservation"):
        memory["reservation"] = reservation
    swap = host.get("MemorySwap")
    if swap:
        memory["swap"] = swap
    elif limit:
        # docker: as much swap again as memory.
        memory["swap"] = 2 * limit
    swappiness = host.get("MemorySwappiness")
    if swappiness is not None and swappiness >= 0:
        memory["swappiness"] = swappiness
    if host.get("OomKillDisable"):
        memory["disableOOMKiller"] = True
    return memory


def _cpu(host: Mapping[str, Any]) -> LinuxCPU:
    cpu: LinuxCPU = {}
    if shares := host.get("CpuShares"):
        cpu["shares"] = shares
    if nano := host.get("NanoCpus"):
        cpu["period"] = _CPU_PERIOD
        cpu["quota"] = nano * _CPU_PERIOD // 1_000_000_000
    if period := host.get("CpuPeriod"):
        cpu["period"] = period
    if quota := host.get("CpuQuota"):
        cpu["quota"] = quota
    if period := host.get("CpuRealtimePeriod"):
        cpu["realtimePeriod"] = period
    if runtime := host.get("CpuRealtimeRuntime"):
        cpu["realtimeRuntime"] = runtime
    if cpus := host.get("CpusetCpus"):
        cpu["cpus"] = cpus
    if mems := host.get("CpusetMems"):
        cpu["mems"] = mems
    return cpu


_THROTTLES = (
    ("BlkioDeviceReadBps", "throttleReadBpsDevice"),
    ("BlkioDeviceWriteBps", "throttleWriteBpsDevice"),
    ("BlkioDeviceReadIOps", "throttleReadIOPSDevice"),
    ("BlkioDeviceWriteIOps", "throttleWriteIOPSDevice"),
)


def _block_io(
    host: Mapping[str, Any], block_devices: Mapping[str, tuple[int, int]]
) -> LinuxBlockIO:
    def limit(entry: Mapping[str, Any], key: str, amount: int) -> Any:
        try:
            major, minor = block_devices[entry["Path"]]
        except KeyError:
            raise UsageError(f"cannot limit {entry['Path']}: it is not a block device") from None
        return {"major": major, "minor": minor, key: amount}

    block: dict[str, Any] = {}
    if weight := host.get("BlkioWeight"):
        block["weight"] = weight
    if entries := host.get("BlkioWeightDevice"):
        block["weightDevice"] = [limit(e, "weight", e["Weight"]) for e in entries]
    for key, name in _THROTTLES:
        if entries := host.get(key):
            block[name] = [limit(e, "rate", e["Rate"]) for e in entries]
    return block  # type: ignore[return-value]
