"""runtime-spec `linux.resources` as what is written to files of a control group, version 2.

All here are functions of the document alone, so that they can be tested anywhere.
"""

from __future__ import annotations

from wherry.errors import Unsupported, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from wherry.oci.runtime_spec import (
        LinuxBlockIO,
        LinuxCPU,
        LinuxHugepageLimit,
        LinuxMemory,
        LinuxRdma,
        LinuxResources,
    )

# One write: the file's name in the group's directory, and what it takes.
Write = tuple[str, str]

_THROTTLES = {
    "throttleReadBpsDevice": "rbps",
    "throttleWriteBpsDevice": "wbps",
    "throttleReadIOPSDevice": "riops",
    "throttleWriteIOPSDevice": "wiops",
}


# Files that a kernel may have been built without, though it has their controller.
OPTIONAL_FILES = frozenset(("io.weight", "memory.swap.max"))


def controllers_of(resources: LinuxResources) -> set[str]:
    """The controllers that the group needs for `resources`."""
    return {name.partition(".")[0] for name in files_of(resources)} - {"cgroup"}


def files_of(resources: LinuxResources) -> set[str]:
    """The names of the files that `resources` are written to."""
    return {name for name, _ in writes(resources)}


def writes(
    resources: LinuxResources, has_file: Callable[[str], bool] = lambda _: False
) -> list[Write]:
    """What to write, in this order. `has_file` says which of several files the kernel has.

    Raises UsageError for values that contradict each other, Unsupported for what
    version 2 has no place for.
    """
    return [
        *_memory(resources.get("memory") or {}),
        *_cpu(resources.get("cpu") or {}),
        *_pids(resources.get("pids") or {}),
        *_block_io(resources.get("blockIO") or {}, bfq=has_file("io.bfq.weight")),
        *_huge_pages(resources.get("hugepageLimits") or [], has_file),
        *_rdma(resources.get("rdma") or {}),
        *_network(resources.get("network") or {}),
        # Last, so that they win over what was said in words of version 1.
        *_unified(resources.get("unified") or {}),
    ]


def merge(resources: LinuxResources, changes: LinuxResources) -> LinuxResources:
    """`resources` after an update: sections change by their keys, lists as wholes.

    Rules about devices are not a container's to change.
    """
    merged: dict[str, Any] = dict(resources)
    for section, change in changes.items():
        if section == "devices":
            continue
        before = merged.get(section)
        if isinstance(before, dict) and isinstance(change, dict):
            change = {**before, **change}
        merged[section] = change
    return merged  # type: ignore[return-value]


def _memory(memory: LinuxMemory) -> list[Write]:
    for key in ("kernel", "kernelTCP"):
        if (memory.get(key) or 0) > 0:  # type: ignore[operator]
            raise _no_place(f"memory.{key}")
    if memory.get("swappiness") is not None:
        raise _no_place("memory.swappiness")
    if memory.get("disableOOMKiller"):
        raise _no_place("memory.disableOOMKiller")
    if memory.get("useHierarchy") is False:
        raise _no_place("memory.useHierarchy=false")
    found: list[Write] = []
    if memory.get("limit"):
        found.append(("memory.max", _maximum(memory["limit"])))
    if memory.get("reservation"):
        found.append(("memory.low", _maximum(memory["reservation"])))
    if memory.get("swap"):
        found.append(("memory.swap.max", _swap(memory["swap"], memory.get("limit") or 0)))
    return found


def _swap(both: int, limit: int) -> str:
    """The spec's `swap` is memory and swap together; version 2 counts swap alone."""
    if both < 0:
        return "max"
    if limit <= 0:
        raise UsageError("resources.memory.swap needs resources.memory.limit")
    if both < limit:
        raise UsageError(f"resources.memory.swap ({both}) is less than memory.limit ({limit})")
    return str(both - limit)


def _cpu(cpu: LinuxCPU) -> list[Write]:
    for key in ("realtimeRuntime", "realtimePeriod"):
        if cpu.get(key):
            raise _no_place(f"cpu.{key}")
    found: list[Write] = []
    idle = cpu.get("idle")
    if idle == 0:
        # An idle group takes no weight.
        found.append(("cpu.idle", "0"))
    if cpu.get("shares"):
        found.append(("cpu.weight", str(weight_of_shares(cpu["shares"]))))
    if idle:
        found.append(("cpu.idle", str(idle)))
    quota, burst = cpu.get("quota") or 0, cpu.get("burst")
    if quota or cpu.get("period"):
        found.append(("cpu.max", f"{quota if quota > 0 else 'max'} {cpu.get('period') or 100000}"))
    if burst is not None:
        if 0 < quota < burst:
            raise UsageError(f"resources.cpu.burst ({burst}) is more than cpu.quota ({quota})")
        found.append(("cpu.max.burst", str(burst)))
    if cpu.get("cpus"):
        found.append(("cpuset.cpus", cpu["cpus"]))
    if cpu.get("mems"):
        found.append(("cpuset.mems", cpu["mems"]))
    return found


def weight_of_shares(shares: int) -> int:
    """cpu.shares (2 to 262144) as cpu.weight (1 to 10000), the defaults 1024 and 100 the same.

    A line would give containers that ask for the default a third of the others' weight.
    So it is the curve through the ends and the defaults that runtimes have agreed on: on
    logarithmic scales a parabola.
    """
    from math import ceil, log2

    bits = log2(max(2, min(shares, 262144)))
    return min(10000, ceil(10 ** ((bits * bits + 125 * bits) / 612 - 7 / 34)))


def _pids(pids: Mapping[str, Any]) -> list[Write]:
    limit = pids.get("limit")
    if limit is None:
        return []
    # With 0 the first process could not be forked into the group; with 1 it can fork no other.
    return [("pids.max", _maximum(limit or 1))]


def _block_io(block: LinuxBlockIO, *, bfq: bool) -> list[Write]:
    name = "io.bfq.weight" if bfq else "io.weight"
    convert = _same if bfq else weight_of_block_io
    found: list[Write] = []
    if block.get("leafWeight"):
        raise _no_place("blockIO.leafWeight")
    if block.get("weight"):
        found.append((name, str(convert(block["weight"]))))
    for device in block.get("weightDevice") or []:
        if device.get("leafWeight"):
            raise _no_place("blockIO.weightDevice.leafWeight")
        if device.get("weight"):
            found.append((name, f"{_numbers(device)} {convert(device['weight'])}"))
    for key, word in _THROTTLES.items():
        entries: list[dict[str, int]] = block.get(key) or []  # type: ignore[assignment]
        found += [
            ("io.max", f"{_numbers(entry)} {word}={entry['rate'] or 'max'}") for entry in entries
        ]
    return found


def weight_of_block_io(weight: int) -> int:
    """blkio.weight (10 to 1000) as io.weight (1 to 10000)."""
    return 1 + (max(10, min(weight, 1000)) - 10) * 9999 // 990


def _same(weight: int) -> int:
    return weight


def _numbers(device: Mapping[str, Any]) -> str:
    return f"{device['major']}:{device['minor']}"


def _huge_pages(limits: list[LinuxHugepageLimit], has_file: Callable[[str], bool]) -> list[Write]:
    found: list[Write] = []
    for entry in limits:
        size = entry["pageSize"]
        if not (size[:-2].isdecimal() and size[-2:] in ("KB", "MB", "GB")):
            raise UsageError(f"resources.hugepageLimits: invalid pageSize {size!r}")
        # Where reservations are counted a program fails when it asks, not when it writes.
        reserved = f"hugetlb.{size}.rsvd.max"
        name = reserved if has_file(reserved) else f"hugetlb.{size}.max"
        found.append((name, str(entry["limit"])))
    return found


def _rdma(devices: Mapping[str, LinuxRdma]) -> list[Write]:
    found: list[Write] = []
    for device, entry in devices.items():
        words = [
            f"{word}={entry[key]}"  # type: ignore[literal-required]
            for key, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
            if entry.get(key) is not None
        ]
        if not words:
            raise UsageError(f"resources.rdma.{device} has neither hcaHandles nor hcaObjects")
        found.append(("rdma.max", " ".join([device, *words])))
    return found


def _network(network: Mapping[str, Any]) -> list[Write]:
    for key in ("classID", "priorities"):
        if network.get(key):
            raise _no_place(f"network.{key}")
    return []


def _unified(unified: Mapping[str, str]) -> list[Write]:
    found: list[Write] = []
    for name, value in unified.items():
        if "/" in name or not name.partition(".")[2]:
            raise UsageError(f"resources.unified: {name!r} is not the name of a file")
        # Such files take one device at a time.
        lines = value.split("\n") if name.startswith(("io.", "rdma.")) else [value]
        found += [(name, line) for line in lines if line]
    return found


def _maximum(value: int) -> str:
    return "max" if value < 0 else str(value)


def _no_place(what: str) -> Unsupported:
    return Unsupported(
        f"cannot set resources.{what}: control groups of version 2 have no such limit"
    )
