"""runtime-spec `linux.resources` as files of cgroup v2."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.oci.runtime_spec import LinuxResources


def files_of(resources: LinuxResources) -> dict[str, str]:
    """What to write to which file of the group; empty where nothing is limited."""
    files: dict[str, str] = {}
    memory = resources.get("memory") or {}
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit is not None:
        files["memory.max"] = _maximum(limit)
    if memory.get("reservation") is not None:
        files["memory.low"] = _maximum(memory["reservation"])
    if swap is not None and (limit is not None or swap < 0):
        # The spec's `swap` is memory and swap together; cgroup v2 counts swap alone.
        files["memory.swap.max"] = "max" if swap < 0 else str(max(0, swap - (limit or 0)))
    cpu = resources.get("cpu") or {}
    if cpu.get("shares"):
        files["cpu.weight"] = str(_weight(cpu["shares"]))
    if cpu.get("quota") is not None or cpu.get("period"):
        quota = cpu.get("quota") or -1
        files["cpu.max"] = f"{quota if quota > 0 else 'max'} {cpu.get('period') or 100000}"
    if cpu.get("burst") is not None:
        files["cpu.max.burst"] = str(cpu["burst"])
    if cpu.get("idle") is not None:
        files["cpu.idle"] = str(cpu["idle"])
    if cpu.get("cpus"):
        files["cpuset.cpus"] = cpu["cpus"]
    if cpu.get("mems"):
        files["cpuset.mems"] = cpu["mems"]
    pids = (resources.get("pids") or {}).get("limit")
    if pids is not None:
        files["pids.max"] = "max" if pids <= 0 else str(pids)
    files.update(resources.get("unified") or {})
    return files


def _maximum(value: int) -> str:
    return "max" if value < 0 else str(value)


def _weight(shares: int) -> int:
    """cpu.shares (2 to 262144) as cpu.weight (1 to 10000), runtime-spec's linear conversion."""
    return 1 + (max(2, min(shares, 262144)) - 2) * 9999 // 262142
