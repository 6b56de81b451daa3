"""`wherry oci events`: what a container uses, in runc's words (its types package)."""

from __future__ import annotations

import os
import select
import sys

from wherry.errors import Conflict
from wherry.lean import dump_json
from wherry_linux.cgroups import Cgroup
from wherry_linux.usage import usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry_linux.runtime import Runtime


def show(runtime: Runtime, container_id: str, *, interval: float, once: bool) -> int:
    """Print a line every `interval` seconds and at each kill for memory, until the end."""
    record = runtime.record(container_id)
    if runtime.status(record) == "stopped":
        raise Conflict(f"container {container_id} is not running")
    _print("stats", container_id, statistics(record))
    if once:
        return 0
    directory = Cgroup(record["cgroup"]).directory if record["cgroup"] else ""
    killed = _kills(directory)
    for happened in _moments(record["pid"], directory, interval):
        if happened == "events":
            if (count := _kills(directory)) > killed:
                _print("oom", container_id, None)
                killed = count
        else:
            _print("stats", container_id, statistics(record))
    return 0


def _moments(pid: int, directory: str, interval: float) -> Any:
    """ "interval" and "events", until the container's first process has ended."""
    poll = select.poll()
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll.register(process, select.POLLIN)
    try:
        events = os.open(f"{directory}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        poll.register(events, select.POLLPRI)
    except OSError:
        events = -1
    try:
        while True:
            ready = [descriptor for descriptor, _ in poll.poll(interval * 1000)]
            if process in ready:
                return
            yield "events" if ready else "interval"
    finally:
        os.close(process)
        if events >= 0:
            os.close(events)


def _kills(directory: str) -> int:
    try:
        with open(f"{directory}/memory.events") as lines:
            return int(dict(line.split() for line in lines).get("oom_kill", 0))
    except OSError:
        return 0


def _print(kind: str, container_id: str, data: dict[str, Any] | None) -> None:
    event: dict[str, Any] = {"type": kind, "id": container_id}
    if data is not None:
        event["data"] = data
    print(dump_json(event))
    sys.stdout.flush()


def statistics(record: dict[str, Any]) -> dict[str, Any]:
    """The `data` of a "stats" event; zeros where no controller counts."""
    sample = usage(record["cgroup"] or "", record["pid"])
    processor, memory = sample.get("cpu_stats") or {}, sample.get("memory_stats") or {}
    used = processor.get("cpu_usage") or {}
    return {
        "cpu": {
            "usage": {
                "total": used.get("total_usage", 0),
                "kernel": used.get("usage_in_kernelmode", 0),
                "user": used.get("usage_in_usermode", 0),
            },
            "throttling": _throttling(processor.get("throttling_data") or {}),
        },
        "memory": {
            "usage": {"limit": memory.get("limit", 0), "usage": memory.get("usage", 0)},
            "raw": memory.get("stats") or {},
        },
        "pids": {key: value for key, value in sample["pids_stats"].items() if value},
        "blkio": {"ioServiceBytesRecursive": _block_io(sample)},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": [
            {
                "Name": name,
                **{
                    "".join(word.capitalize() for word in key.split("_")): value
                    for key, value in counters.items()
                },
            }
            for name, counters in sample["networks"].items()
        ],
    }


def _throttling(data: dict[str, int]) -> dict[str, int]:
    words = (
        ("periods", "periods"),
        ("throttledPeriods", "throttled_periods"),
        ("throttledTime", "throttled_time"),
    )
    return {word: data[key] for word, key in words if data.get(key)}


def _block_io(sample: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {**entry, "op": entry["op"].capitalize()}
        for entry in (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    ]
