"""What a container uses: its control group and its network devices, in the API's words."""

from __future__ import annotations

import os

from wherry_linux.cgroups import Cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def usage(cgroup: str, pid: int) -> dict[str, Any]:
    """A sample in the form of docker's /stats. `cgroup` is "" where there is none."""
    sample: dict[str, Any] = {"networks": _networks(pid)}
    if not cgroup:
        # Without a group of its own nobody counts; the first process is there, that is all.
        return {**sample, "pids_stats": {"current": 0}}
    directory = Cgroup(cgroup).directory
    cpu = _pairs(f"{directory}/cpu.stat")
    memory = _pairs(f"{directory}/memory.stat")
    return {
        **sample,
        "pids_stats": {
            "current": _number(f"{directory}/pids.current") or _count(directory),
            "limit": _number(f"{directory}/pids.max"),
        },
        "cpu_stats": {
            "cpu_usage": {
                "total_usage": cpu.get("usage_usec", 0) * 1000,
                "usage_in_kernelmode": cpu.get("system_usec", 0) * 1000,
                "usage_in_usermode": cpu.get("user_usec", 0) * 1000,
            },
            "online_cpus": os.cpu_count() or 1,
            "throttling_data": {
                "periods": cpu.get("nr_periods", 0),
                "throttled_periods": cpu.get("nr_throttled", 0),
                "throttled_time": cpu.get("throttled_usec", 0) * 1000,
            },
        },
        "memory_stats": {
            "usage": _number(f"{directory}/memory.current"),
            "limit": _number(f"{directory}/memory.max") or _machine_memory(),
            "stats": memory,
        },
        "blkio_stats": {"io_service_bytes_recursive": _block_bytes(f"{directory}/io.stat")},
    }


def _read(path: str) -> str:
    """A file of the kernel's; "" where a controller is not on, or the container is gone."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _number(path: str) -> int:
    """The number in a file; 0 for `max` and for none."""
    text = _read(path).strip()
    return int(text) if text.isdecimal() else 0


def _count(directory: str) -> int:
    return len(_read(f"{directory}/cgroup.procs").split())


def _pairs(path: str) -> dict[str, int]:
    """A flat keyed file (cgroup-v2.rst, "Format")."""
    words = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdecimal()}


def _block_bytes(path: str) -> list[dict[str, Any]]:
    """io.stat: `MAJOR:MINOR rbytes=… wbytes=… …`, a line for each device."""
    entries: list[dict[str, Any]] = []
    for line in _read(path).splitlines():
        device, *fields = line.split()
        major, _, minor = device.partition(":")
        values = dict(field.partition("=")[::2] for field in fields)
        for key, operation in (("rbytes", "read"), ("wbytes", "write")):
            if values.get(key, "").isdecimal() and major.isdecimal():
                entries.append(
                    {
                        "major": int(major),
                        "minor": int(minor),
                        "op": operation,
                        "value": int(values[key]),
                    }
                )
    return entries


def _networks(pid: int) -> dict[str, dict[str, int]]:
    """/proc/PID/net/dev, which shows the process's own network namespace; see proc(5)."""
    networks = {}
    for line in _read(f"/proc/{pid}/net/dev").splitlines()[2:]:
        name, _, counters = line.partition(":")
        values = [int(word) for word in counters.split()]
        if name.strip() != "lo" and len(values) >= 16:
            networks[name.strip()] = {
                "rx_bytes": values[0],
                "rx_packets": values[1],
                "rx_errors": values[2],
                "rx_dropped": values[3],
                "tx_bytes": values[8],
                "tx_packets": values[9],
                "tx_errors": values[10],
                "tx_dropped": values[11],
            }
    return networks


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
