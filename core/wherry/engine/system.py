"""What can be asked of wherry as a whole: version, info, events, disk usage."""

from __future__ import annotations

import os
import platform
import sys
import time

from wherry import __version__, events, paths
from wherry.engine.documents import RUNNING, summary
from wherry.errors import UsageError
from wherry.image.platform import host_platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from wherry.engine import Engine
    from wherry.filters import Filters
    from wherry.oci.runtime_spec import LinuxResources

API_VERSION = "1.47"
"""The version of docker's Engine API whose documents ours follow."""

MIN_API_VERSION = "1.24"


class System:
    """The verbs of `wherry system`; answers are the documents of the Docker Engine API."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def version(self) -> dict[str, Any]:
        """/version: the program that carries commands out, and its kernel."""
        architecture = host_platform().architecture
        return {
            "Platform": {"Name": "wherry"},
            "Components": [
                {
                    "Name": "Engine",
                    "Version": __version__,
                    "Details": {
                        "ApiVersion": API_VERSION,
                        "Arch": architecture,
                        "KernelVersion": platform.release(),
                        "MinAPIVersion": MIN_API_VERSION,
                        "Os": "linux",
                    },
                }
            ],
            "Version": __version__,
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MIN_API_VERSION,
            "GitCommit": "",
            "GoVersion": "",
            "PythonVersion": platform.python_version(),
            "Os": "linux",
            "Arch": architecture,
            "KernelVersion": platform.release(),
            "BuildTime": "",
        }

    def info(self) -> dict[str, Any]:
        """/info."""
        from wherry.container import cdi
        from wherry.container.log_drivers import DRIVERS

        containers = self._engine.containers.all()
        states = [container.state["Status"] for container in containers]
        rootless = self._engine.runtime.is_rootless()
        security = ["name=seccomp,profile=builtin", "name=cgroupns"]
        cgroup = self._engine.runtime.cgroup_path("info", "")
        missing = self._engine.runtime.missing_controllers(_EVERY_LIMIT, cgroup)
        return {
            "ID": _machine_id(),
            "Containers": len(states),
            "ContainersRunning": sum(state in ("running", "restarting") for state in states),
            "ContainersPaused": states.count("paused"),
            "ContainersStopped": sum(state not in RUNNING for state in states),
            "Images": len(self._engine.image_store.images()),
            "Driver": "overlay2",
            "DriverStatus": [
                ["Backing Filesystem", _file_system(paths.data())],
                ["Native Overlay Diff", "true"],
                ["userxattr", "true"],
            ],
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "null"],
                "Authorization": None,
                "Log": list(DRIVERS),
            },
            **{key: all(name not in missing for name in needs) for key, needs in _LIMITS.items()},
            "IPv4Forwarding": True,
            "OomKillDisable": False,
            "Debug": bool(os.environ.get("WHERRY_DEBUG")),
            "NFd": 0,
            "NGoroutines": 0,
            "NEventsListener": 0,
            "SystemTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "LoggingDriver": "json-file",
            "CgroupDriver": _driver(cgroup),
            "CgroupVersion": self._engine.runtime.cgroup_version(),
            "KernelVersion": platform.release(),
            "OperatingSystem": _system_name(),
            "OSVersion": "",
            "OSType": "linux",
            "Architecture": platform.machine(),
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": {
                "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
                "IndexConfigs": {},
                "Mirrors": [],
            },
            "NCPU": os.cpu_count() or 1,
            "MemTotal": _memory(),
            "DockerRootDir": paths.data(),
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Name": platform.node(),
            "Labels": [],
            "ExperimentalBuild": False,
            "ServerVersion": __version__,
            "Runtimes": {"wherry": {"path": "wherry oci"}},
            "DefaultRuntime": "wherry",
            "Swarm": {"LocalNodeState": "inactive", "ControlAvailable": False},
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "wherry",
            "SecurityOptions": [*security, "name=rootless"] if rootless else security,
            "Warnings": _warnings(missing) or None,
            "CDISpecDirs": list(cdi.DIRECTORIES),
        }

    # ---- events ----

    def events(self, *, since: int, until: int, filters: Filters) -> Iterator[dict[str, Any]]:
        """The events that `filters` let through, from `since` (0: now) to `until` (0: for ever)."""
        _check_event_filters(filters)
        ended = until and until <= time.time_ns()
        if ended:
            yield from (
                event
                for event in events.read(since)
                if event["timeNano"] <= until and _passes(event, filters)
            )
            return
        changed = self._engine.runtime.watch([paths.events()])

        def wait(_: str) -> None:
            changed((until - time.time_ns()) / 1e9 if until else -1)

        for event in events.follow(since or time.time_ns(), wait):
            if until and (event["timeNano"] if event else time.time_ns()) > until:
                return
            if event is not None and _passes(event, filters):
                yield event

    # ---- disk usage ----

    def disk_usage(self) -> dict[str, Any]:
        """/system/df."""
        from wherry.engine.query import sizes
        from wherry.image.documents import created, familiar_names, layer_sizes

        engine = self._engine
        containers = []
        users: dict[str, int] = {}
        for container in engine.containers.all():
            entry = summary(container)
            entry["SizeRw"], entry["SizeRootFs"] = sizes(engine.containers, container)
            containers.append(entry)
            users[entry["ImageID"]] = users.get(entry["ImageID"], 0) + 1
        images = engine.image_store.images()
        holders: dict[str, int] = {}
        measured: dict[str, int] = {}
        for image in images:
            measured.update(zip(image.diff_ids, layer_sizes(image), strict=False))
            for layer in set(image.diff_ids):
                holders[layer] = holders.get(layer, 0) + 1
        return {
            "LayersSize": sum(measured.values()),
            "Images": [
                {
                    "Id": image.id,
                    "RepoTags": familiar_names(image),
                    "RepoDigests": list(image.repo_digests),
                    "Created": created(image.config) // 1_000_000_000,
                    "Size": sum(measured.get(layer, 0) for layer in set(image.diff_ids)),
                    "SharedSize": sum(
                        measured.get(layer, 0)
                        for layer in set(image.diff_ids)
                        if holders[layer] > 1
                    ),
                    "Containers": users.get(image.id, 0),
                    "Labels": (image.config.get("config") or {}).get("Labels") or {},
                }
                for image in images
            ],
            "Containers": containers,
            "Volumes": self._volumes(),
            "BuildCache": [],
        }

    def _volumes(self) -> list[dict[str, Any]]:
        volumes = self._engine.volumes
        used = self._engine.container_store.volume_users()
        return [
            {
                **volume.inspect(),
                "UsageData": {
                    "Size": volumes.size(volume),
                    "RefCount": len(used.get(volume.name, ())),
                },
            }
            for volume in volumes.store.volumes()
        ]


def _memory() -> int:
    """The bytes of memory that the machine has."""
    if sys.platform == "win32":
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _driver(cgroup: str | None) -> str:
    """Who makes containers' control groups, from the place of one."""
    if cgroup is None:
        return "none"
    return "systemd" if cgroup.endswith(".scope/container") else "cgroupfs"


def _machine_id() -> str:
    try:
        with open("/etc/machine-id") as file:
            return file.read().strip()
    except OSError:
        return platform.node()


def _system_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _file_system(path: str) -> str:
    """The type of the file system that holds `path`, or will hold it."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    best, kind = "", "unknown"
    try:
        with open("/proc/self/mounts") as mounts:
            for line in mounts:
                _, point, name, *_ = line.split(" ")
                inside = path == point or path.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, name
    except OSError:
        pass
    return kind


# Something of what each controller does.
_EVERY_LIMIT: LinuxResources = {
    "memory": {"limit": 1, "swap": 1},
    "cpu": {"shares": 2, "cpus": "0"},
    "pids": {"limit": 1},
    "blockIO": {"weight": 10},
}


# The keys of /info, and what of the kernel each needs.
_LIMITS = {
    "MemoryLimit": ("memory",),
    "SwapLimit": ("memory", "memory.swap.max"),
    "CpuCfsPeriod": ("cpu",),
    "CpuCfsQuota": ("cpu",),
    "CPUShares": ("cpu",),
    "CPUSet": ("cpuset",),
    "PidsLimit": ("pids",),
}

# docker's words for what is missing.
_LACKS = {
    "cpu": ("cpu shares", "cpu cfs quota", "cpu cfs period"),
    "cpuset": ("cpuset",),
    "io": ("io.weight", "io.weight (per device)", "io.max (rbps)", "io.max (wbps)",
           "io.max (riops)", "io.max (wiops)"),
    "io.weight": ("io.weight", "io.weight (per device)"),
    "memory": ("memory limit", "swap limit"),
    "memory.swap.max": ("swap limit",),
    "pids": ("pids limit",),
}  # fmt: skip


def _warnings(missing: Sequence[str]) -> list[str]:
    return [f"WARNING: No {what} support" for name in missing for what in _LACKS.get(name, ())]


# ---- event filters ----

_SCOPES = ("container", "image", "volume", "network", "daemon")


def _check_event_filters(filters: Filters) -> None:
    for kind in filters.get("type", ()):
        if kind not in (*_SCOPES, "plugin", "service", "node", "secret", "config", "builder"):
            raise UsageError(f"invalid filter 'type={kind}'")


def _passes(event: dict[str, Any], filters: Filters) -> bool:
    from wherry.filters import matches, matches_exactly, matches_labels

    actor = event["Actor"]
    attributes: dict[str, str] = actor.get("Attributes") or {}
    action = str(event["Action"])
    if not (
        matches_exactly(filters, "type", event["Type"])
        and matches_exactly(filters, "scope", event.get("scope") or "local")
        and matches(filters, "event", lambda wanted: wanted in (action, action.partition(":")[0]))
        and matches_labels(filters, attributes)
    ):
        return False
    for kind in _SCOPES:
        wanted = filters.get(kind)
        if wanted and not (event["Type"] == kind and _names(actor, attributes, wanted)):
            # An image is also told of by the events of its containers.
            of_image = kind == "image" and attributes.get("image") in wanted
            if not of_image:
                return False
    return True


def _names(actor: dict[str, Any], attributes: dict[str, str], wanted: tuple[str, ...]) -> bool:
    name = attributes.get("name")
    return any(each == name or actor["ID"].startswith(each) for each in wanted)
