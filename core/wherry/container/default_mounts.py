"""The mounts that every container has, as docker makes them, and their order.

What shows a namespace (procfs, sysfs, mqueue, cgroup2) can only be mounted by who has
capabilities over that namespace. A container in a user namespace of its own has none
over what it shares with the host; it is then given the host's mount.
"""

from __future__ import annotations

import posixpath

from wherry.container.namespaces import is_mapped, mode, own_section, owns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.container.bundle import ContainerFacts
    from wherry.oci.runtime_spec import Mount

DEFAULT_SHM_SIZE = 64 << 20


def mounts(
    body: Mapping[str, Any], facts: ContainerFacts, *, writable_cgroups: bool = False
) -> list[Mount]:
    """The defaults that nothing of the user's replaces, then the user's by depth."""
    host: Mapping[str, Any] = body.get("HostConfig") or {}
    given = [*facts.mounts, *_tmpfs_mounts(host, {clean(m["destination"]) for m in facts.mounts})]
    taken = {clean(mount["destination"]) for mount in given}
    defaults = [
        mount
        for mount in _default_mounts(body, facts, writable_cgroups)
        if mount["destination"] not in taken
        and not ("/dev" in taken and mount["destination"].startswith("/dev/"))
    ]
    if host.get("ReadonlyRootfs") and own_section(body).get("ReadonlyTmpfs"):
        defaults += [
            _tmpfs(path, ["rw", "nosuid", "nodev", "mode=1777", "tmpcopyup"])
            for path in ("/run", "/tmp", "/var/tmp")
            if path not in taken
        ]
    # A mount on /a would hide one made on /a/b before it.
    return defaults + sorted(given, key=lambda mount: _depth(mount["destination"]))


def _default_mounts(
    body: Mapping[str, Any], facts: ContainerFacts, writable_cgroups: bool
) -> list[Mount]:
    privileged = bool((body.get("HostConfig") or {}).get("Privileged"))
    return [
        _proc(body, facts),
        _tmpfs("/dev", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _devpts(facts),
        _sysfs(body, facts, writable=privileged),
        _cgroupfs(body, facts, writable=privileged or writable_cgroups),
        *_mqueue(body, facts),
        *_shm(body, facts),
    ]


def _proc(body: Mapping[str, Any], facts: ContainerFacts) -> Mount:
    # It shows a PID namespace. The host's serves for the host's alone: for one that is
    # joined the Runtime has to enter it with its owner's rights.
    if mode(body, "pid") == "host" and not owns(body, facts, "pid"):
        return _rbind("/proc", "/proc", [])
    return _mount("/proc", "proc", ["nosuid", "noexec", "nodev"])


def _devpts(facts: ContainerFacts) -> Mount:
    options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    # The group `tty`; the kernel refuses a group that is not mapped.
    if is_mapped(facts.gid_maps, 5):
        options.append("gid=5")
    return _mount("/dev/pts", "devpts", options)


def _sysfs(body: Mapping[str, Any], facts: ContainerFacts, *, writable: bool) -> Mount:
    # It shows a network namespace.
    if not owns(body, facts, "network"):
        return _rbind("/sys", "/sys", ["rw" if writable else "rro"])
    return _mount("/sys", "sysfs", ["nosuid", "noexec", "nodev", "rw" if writable else "ro"])


def _cgroupfs(body: Mapping[str, Any], facts: ContainerFacts, *, writable: bool) -> Mount:
    if not owns(body, facts, "cgroup"):
        return _rbind("/sys/fs/cgroup", "/sys/fs/cgroup", ["rw" if writable else "rro"])
    options = ["nosuid", "noexec", "nodev", "relatime", "rw" if writable else "ro"]
    return _mount("/sys/fs/cgroup", "cgroup", options)


def _mqueue(body: Mapping[str, Any], facts: ContainerFacts) -> list[Mount]:
    if owns(body, facts, "ipc"):
        return [_mount("/dev/mqueue", "mqueue", ["nosuid", "noexec", "nodev"])]
    if mode(body, "ipc") == "host":
        return [_rbind("/dev/mqueue", "/dev/mqueue", [])]
    # Message queues work without their file system.
    return []


def _shm(body: Mapping[str, Any], facts: ContainerFacts) -> list[Mount]:
    ipc = mode(body, "ipc")
    if ipc == "none":
        return []
    if ipc == "host":
        return [_rbind("/dev/shm", "/dev/shm", [])]
    if facts.shm_namespace is not None:
        return [_rbind("/dev/shm", "/dev/shm", [f"x-wherry.namespace={facts.shm_namespace}"])]
    size = (body.get("HostConfig") or {}).get("ShmSize") or DEFAULT_SHM_SIZE
    return [_tmpfs("/dev/shm", ["nosuid", "noexec", "nodev", "mode=1777", f"size={size}"])]


def _mount(destination: str, fstype: str, options: list[str]) -> Mount:
    return {"destination": destination, "type": fstype, "source": fstype, "options": options}


def _tmpfs(destination: str, options: list[str]) -> Mount:
    return _mount(destination, "tmpfs", options)


def _rbind(source: str, destination: str, options: list[str]) -> Mount:
    # What a user namespace inherits is locked together: a bind of part of it is refused.
    return {
        "destination": destination,
        "type": "bind",
        "source": source,
        "options": ["rbind", "rprivate", "nosuid", "noexec", "nodev", *options],
    }


def _tmpfs_mounts(host: Mapping[str, Any], taken: set[str]) -> list[Mount]:
    """`--tmpfs` and `--mount type=tmpfs`: what is asked for after what docker sets."""
    asked: list[tuple[str, list[str]]] = [
        (path, options.split(",") if options else [])
        for path, options in (host.get("Tmpfs") or {}).items()
    ]
    asked += [
        (mount["Target"], _tmpfs_options(mount))
        for mount in host.get("Mounts") or ()
        if mount.get("Type") == "tmpfs"
    ]
    return [
        _tmpfs(clean(path), _override(["noexec", "nosuid", "nodev"], options))
        for path, options in asked
        if clean(path) not in taken
    ]


def _tmpfs_options(mount: Mapping[str, Any]) -> list[str]:
    given: Mapping[str, Any] = mount.get("TmpfsOptions") or {}
    options = ["ro"] if mount.get("ReadOnly") else []
    if size := given.get("SizeBytes"):
        options.append(f"size={size}")
    if mode := given.get("Mode"):
        options.append(f"mode={mode:o}")
    return options + ["=".join(option) for option in given.get("Options") or ()]


def _override(defaults: list[str], options: list[str]) -> list[str]:
    """`defaults` without what `options` turn round (`exec` over `noexec`), then `options`."""
    return [default for default in defaults if default.removeprefix("no") not in options] + [
        option for option in options if option not in defaults
    ]


def clean(path: str) -> str:
    """A container path without `.`, `..` and doubled slashes, from the root."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _depth(path: str) -> int:
    return len(clean(path).rstrip("/").split("/"))
