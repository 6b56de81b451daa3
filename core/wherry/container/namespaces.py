"""The namespaces of a container, and what the kernel keeps in them.

Each is the container's own unless the create body says `host`, or the engine gives
the path of another container's.
"""

from __future__ import annotations

from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.container.bundle import ContainerFacts
    from wherry.oci.runtime_spec import (
        IDMapping,
        LinuxNamespace,
        LinuxTimeOffset,
        LinuxTimeOffsets,
        NamespaceType,
    )

NAMESPACES: tuple[NamespaceType, ...] = (
    "user",
    "cgroup",
    "ipc",
    "uts",
    "network",
    "mount",
    "pid",
    "time",
)

# Where the create body says which one; the time namespace is in wherry's part.
_MODES: dict[str, str] = {
    "cgroup": "CgroupnsMode",
    "ipc": "IpcMode",
    "uts": "UTSMode",
    "network": "NetworkMode",
    "pid": "PidMode",
    "time": "TimeMode",
}

# The kernel's GID_T_MAX, the last group that net.ipv4.ping_group_range takes.
_LAST_PING_GROUP = 2**31 - 1

_KERNEL_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in (
        "msgmax",
        "msgmnb",
        "msgmni",
        "sem",
        "shmall",
        "shmmax",
        "shmmni",
        "shm_rmid_forced",
    )
)


def own_section(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of the create body that is wherry's own."""
    return body.get("Wherry") or {}


def mode(body: Mapping[str, Any], kind: str) -> str:
    """What the body says about the namespace of this kind: "", host, private, container:ID…"""
    section = own_section(body) if kind == "time" else body.get("HostConfig") or {}
    return str(section.get(_MODES[kind]) or "")


def has_own_ids(body: Mapping[str, Any]) -> bool:
    """Whether the container's ids may not be everybody's (see wherry.engine.idmaps)."""
    userns = str((body.get("HostConfig") or {}).get("UsernsMode") or "")
    return userns.startswith(("auto", "keep-id", "nomap")) or bool(joined_container(body))


# Where the body says `container:ID`, and the namespace that it is about.
JOINABLE = {
    "network": "NetworkMode",
    "pid": "PidMode",
    "ipc": "IpcMode",
    "uts": "UTSMode",
    "cgroup": "CgroupnsMode",
    "user": "UsernsMode",
}


def joined_container(body: Mapping[str, Any]) -> str:
    """The container whose user namespace this one is in, as the body names it; "" for none.

    Namespaces can be joined only together with the user namespace that they belong to.
    """
    host: Mapping[str, Any] = body.get("HostConfig") or {}
    found = ""
    for key in JOINABLE.values():
        kind, _, name = str(host.get(key) or "").partition(":")
        if kind == "container":
            found = name
    return found


def namespaces(body: Mapping[str, Any], facts: ContainerFacts) -> list[LinuxNamespace]:
    """The namespaces that the container gets or joins. Raises UsageError."""
    result: list[LinuxNamespace] = []
    for kind in NAMESPACES:
        if path := facts.namespace_paths.get(kind):
            result.append({"type": kind, "path": path})
        elif kind == "user":
            if facts.uid_maps is not None:
                result.append({"type": kind})
        elif kind == "mount" or (kind in facts.namespaces and not _is_shared(body, kind)):
            result.append({"type": kind})
    return result


def _is_shared(body: Mapping[str, Any], kind: str) -> bool:
    """Whether the container stays in the host's namespace of this kind."""
    asked = mode(body, kind)
    if asked.startswith("container:"):
        name = asked.removeprefix("container:")
        raise UsageError(f"cannot join the {kind} namespace of container {name}: it has none")
    return asked == "host"


def has_users(facts: ContainerFacts) -> bool:
    """Whether the container is in a user namespace other than the host's."""
    return facts.uid_maps is not None or "user" in facts.namespace_paths


def owns(body: Mapping[str, Any], facts: ContainerFacts, kind: str) -> bool:
    """Whether the container's user namespace has capabilities over this namespace.

    It has them over those made from within it: not over the host's, nor over one that
    was made before, unless it joins the user namespace as well.
    """
    if not has_users(facts):
        return True
    if kind in facts.namespace_paths:
        return "user" in facts.namespace_paths
    return kind in facts.namespaces and mode(body, kind) != "host"


def time_offsets(body: Mapping[str, Any]) -> LinuxTimeOffsets | None:
    """`--clock-offset`, in seconds, as runtime-spec's pairs."""
    offsets: Mapping[str, float] = own_section(body).get("ClockOffsets") or {}
    if not offsets:
        return None
    return {
        "monotonic": _offset(offsets.get("monotonic", 0)),
        "boottime": _offset(offsets.get("boottime", 0)),
    }


def _offset(seconds: float) -> LinuxTimeOffset:
    # The kernel wants nanoseconds that are not negative.
    total = round(seconds * 1_000_000_000)
    return {"secs": total // 1_000_000_000, "nanosecs": total % 1_000_000_000}


def sysctls(body: Mapping[str, Any], facts: ContainerFacts) -> dict[str, str]:
    """docker's two defaults for a network of its own, and what the user sets.

    By the defaults a process that is not root may use ports below 1024 and send pings.
    """
    network, ipc = mode(body, "network"), mode(body, "ipc")
    settings: dict[str, str] = {}
    if network != "host" and not network.startswith("container:"):
        settings["net.ipv4.ip_unprivileged_port_start"] = "0"
        groups = facts.host_gids if facts.gid_maps is None else facts.gid_maps
        if last := _last_group(groups):
            settings["net.ipv4.ping_group_range"] = f"0 {last}"
    for name, setting in ((body.get("HostConfig") or {}).get("Sysctls") or {}).items():
        _check_sysctl(name, network, ipc)
        settings[name] = str(setting)
    return settings


def _check_sysctl(name: str, network: str, ipc: str) -> None:
    """Only what a namespace of the container's own holds may be set."""
    if name.startswith("net."):
        if network == "host":
            raise UsageError(f"sysctl '{name}' is not allowed in the host's network namespace")
    elif name in _KERNEL_SYSCTLS or name.startswith("fs.mqueue."):
        if ipc == "host":
            raise UsageError(f"sysctl '{name}' is not allowed in the host's ipc namespace")
    else:
        raise UsageError(
            f"sysctl '{name}' is not allowed",
            hint="a container has net.*, fs.mqueue.* and kernel's msg*, sem and shm* of its own",
        )


def is_mapped(maps: Sequence[IDMapping] | None, number: int) -> bool:
    """Whether the id exists in the container; every one does without maps."""
    return maps is None or any(
        mapping["containerID"] <= number < mapping["containerID"] + mapping["size"]
        for mapping in maps
    )


def _last_group(maps: Sequence[IDMapping] | None) -> int:
    """The end of the range that begins with group 0: the kernel refuses one not mapped."""
    if maps is None:
        return _LAST_PING_GROUP
    sizes = (mapping["size"] for mapping in maps if mapping["containerID"] == 0)
    return min(next(sizes, 1) - 1, _LAST_PING_GROUP)
