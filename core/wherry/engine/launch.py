"""From a container's record to the config.json of its next run, and back when it is over."""

from __future__ import annotations

import os
import stat
import sys

from wherry import paths
from wherry.container.bundle import ContainerFacts, runtime_spec
from wherry.container.namespaces import JOINABLE, has_own_ids, mode
from wherry.container.overlay import overlay_mount
from wherry.container.resources import drop_limits
from wherry.engine import mounts, removal
from wherry.errors import Conflict, NotFound, UsageError
from wherry.files import make_dir, write_asked, write_json
from wherry.lean import posix
from wherry.volume.store import VolumeStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.container.store import Container, ContainerStore
    from wherry.errors import NoUserNamespace
    from wherry.oci.runtime_spec import IDMapping, Mount, Spec
    from wherry.runtime import Runtime

# Capabilities that the kernel honours only in the first user namespace.
_HOST_CAPABILITIES = frozenset(
    (
        "ALL AUDIT_CONTROL AUDIT_READ BLOCK_SUSPEND BPF LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE"
        " PERFMON SYSLOG SYS_MODULE SYS_NICE SYS_RAWIO SYS_RESOURCE SYS_TIME WAKE_ALARM"
    ).split()
)


_DEVICE_LIMITS = (
    "BlkioWeightDevice",
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
)


class ContainerKeeper:
    """The engine's part in a container's life; see wherry.runtime.Keeper."""

    def __init__(self, store: ContainerStore, runtime: Runtime) -> None:
        self._store = store
        self._runtime = runtime

    def prepare(self, container: Container, refusal: NoUserNamespace | None = None) -> Spec:
        """The config.json of the container's next run, without a user namespace if need be."""
        body = container.body
        host = body["HostConfig"]
        runtime = self._runtime
        joined, owner = self._joined(body)
        if owner is not None and "user" not in joined:
            maps = None  # nobody in a user namespace of its own may join the host's
        else:
            maps = self._id_maps(container if owner is None else owner)
        if owner is not None and runtime.is_rootless():
            self._check_ids(container, owner)
        if refusal is not None:
            asked = host.get("UsernsMode") or ""
            if runtime.is_rootless() or (asked and not asked.startswith("keep-id")):
                raise refusal
            maps = None
        is_shifted = not runtime.is_rootless() and _changes_owners(maps)
        network = mode(body, "network")
        if network.startswith("container:"):
            other = self._running(network.removeprefix("container:"))
            body = {**body, "Hostname": other.body.get("Hostname") or other.id[:12]}
        own = body.get("Wherry") or {}
        edits = _device_edits(host)
        resolved = mounts.start_mounts(
            container, runtime, VolumeStore(unshared=runtime.unshared), self._store, maps
        )
        facts = ContainerFacts(
            id=container.id,
            rootfs=own.get("Rootfs") or container.path("root"),
            machine_hostname=posix.uname().nodename,
            rootless=runtime.is_rootless(),
            user_name=_user_name() if host.get("UsernsMode") else "",
            uid_maps=None if maps is None else maps[0],
            gid_maps=None if maps is None else maps[1],
            host_gids=self._host_groups() if maps is None else None,
            mounts=[*resolved, *_time_zone(own)],
            namespace_paths=joined,
            namespaces=runtime.namespaces(),
            cgroup_path=runtime.cgroup_path(container.id, host.get("CgroupParent") or ""),
            shm_namespace=self._shared_memory(body),
            capabilities=runtime.capabilities() if maps is None and "user" not in joined else None,
            devices=self._devices(host, edits),
            block_devices=block_devices(host),
            cpus=os.cpu_count() or 1,
            seccomp=runtime.resolve_seccomp,
        )
        if own.get("Secrets"):
            from wherry.secrets import secret_env

            found = secret_env(container.id, body, runtime, mounts.owner_within(container))
            body = {**body, "Env": [*body["Env"], *found]}
        spec = runtime_spec(body, None, facts)
        drop_limits(
            spec["linux"]["resources"],
            runtime.missing_controllers(spec["linux"]["resources"], facts.cgroup_path),
        )
        if not os.path.exists("/dev/mqueue"):
            # `--ipc host` without root: message queues work without their file system.
            spec["mounts"] = [one for one in spec["mounts"] if one.get("source") != "/dev/mqueue"]
        if not own.get("Rootfs"):
            spec["mounts"] = [root_overlay(container), *spec["mounts"]]
        if edits:
            from wherry.engine.cdi import inject

            inject(spec, edits)
        if is_shifted:
            if own.get("Rootfs"):
                spec["root"]["path"] = container.path("root")
                spec["mounts"] = [_bound_root(own["Rootfs"]), *spec["mounts"]]
            _idmap(spec, facts.mounts)
        if own.get("SdNotify"):
            from wherry.container.notify import let_notify

            let_notify(container, spec)
        write_json(container.path("config.json"), spec)
        return spec

    def _joined(self, body: Mapping[str, Any]) -> tuple[dict[str, str], Container | None]:
        """The namespaces of other containers that this one joins, by type, and whose they are."""
        host = body["HostConfig"]
        joined: dict[str, str] = {}
        other = None
        for kind, key in JOINABLE.items():
            asked = host.get(key) or ""
            if not asked.startswith("container:"):
                continue
            other = self._running(asked.removeprefix("container:"))
            joined[kind] = f"/proc/{other.state['Pid']}/ns/{kind.replace('network', 'net')}"
        if other is not None and "user" not in joined:
            numbers = self._runtime.namespace_numbers(other.state["Pid"])
            if numbers["user"] != self._runtime.namespace_numbers()["user"]:
                # Its namespaces belong to its user namespace: nobody else may join them.
                joined["user"] = f"/proc/{other.state['Pid']}/ns/user"
        return joined, other

    def _running(self, name: str) -> Container:
        other = self._store.find(name)
        if other.state["Status"] not in ("running", "paused"):
            raise Conflict(
                f"cannot join the namespaces of container {name}: it is not running",
                hint=f"start it first: wherry start {name}",
            )
        return other

    def _id_maps(self, container: Container) -> tuple[list[IDMapping], list[IDMapping]] | None:
        body = container.body
        if not self._runtime.is_rootless() and why_no_user_namespace(body):
            return None
        if has_own_ids(body):
            from wherry.engine.idmaps import own_maps

            own = own_maps(container)
            if own is not None:
                return own
        return self._runtime.id_maps(body["HostConfig"].get("UsernsMode") or "")

    def _host_groups(self) -> list[IDMapping] | None:
        every = None if self._runtime.is_rootless() else self._runtime.id_maps("")
        return None if every is None else every[1]

    def _check_ids(self, container: Container, owner: Container) -> None:
        """Refuse files that belong to ids which the joined container has not. Raises Conflict."""
        from wherry.engine.idmaps import own_maps

        if own_maps(container) != own_maps(owner):
            raise Conflict(
                f"cannot start container {container.name}: it was made with other ids than those"
                f" of container {owner.name}, which it joins",
                hint="remove it, and create it again while that one is there",
            )

    def _shared_memory(self, body: Mapping[str, Any]) -> str | None:
        asked = mode(body, "ipc")
        if not asked.startswith("container:"):
            return None
        other = self._running(asked.removeprefix("container:"))
        theirs = mode(other.body, "ipc")
        if theirs not in ("shareable", "host") and not theirs.startswith("container:"):
            raise Conflict(
                f"cannot join IPC of container {other.name}: non-shareable IPC",
                hint="start that one with --ipc shareable",
            )
        return f"/proc/{other.state['Pid']}/ns/mnt"

    def _devices(self, host: Mapping[str, Any], edits: list[Any]) -> list[Any]:
        devices = list(self._runtime.all_devices()) if host.get("Privileged") else []
        for entry in host.get("Devices") or ():
            devices += self._runtime.device(
                entry["PathOnHost"], entry["PathInContainer"], entry["CgroupPermissions"]
            )
        if edits:
            from wherry.engine.cdi import device_nodes

            devices += device_nodes(edits, self._runtime)
        return devices

    def connect(self, container: Container, pid: int) -> list[dict[str, Any]]:
        """Give the created container its network, and say which process it is."""
        body = container.body
        if path := (body.get("Wherry") or {}).get("PidFile"):
            write_asked(path, str(pid).encode())
        network = mode(body, "network")
        has_none = network in ("none", "host") or network.startswith("container:")
        if has_none and not container.record.get("Networks"):
            return []
        from wherry.engine import networking

        return networking.connect(container, pid, self._runtime)

    def change_network(
        self, container: Container, pid: int, message: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """Change the network of a running container."""
        from wherry.engine import networking

        return networking.change(container, pid, self._runtime, message)

    def disconnect(self, container: Container) -> None:
        """Take back what `connect` gave."""
        removal.disconnect(container.id, self._runtime)

    def ended(self, container: Container) -> None:
        """Take back what the last run had."""
        removal.forget_run(container.id, self._runtime)

    def remove(self, container: Container) -> None:
        """Remove the container and its anonymous volumes."""
        removal.remove(container, self._store, self._runtime, volumes=True)
        if (container.body.get("Wherry") or {}).get("RemoveImage"):
            from wherry.engine import Engine

            try:
                Engine(self._runtime).images.remove(container.record["ImageName"])
            except (Conflict, NotFound):
                pass  # somebody else uses it, or has removed it


def _device_edits(host: Mapping[str, Any]) -> list[Any]:
    """What the devices of `--gpus` and of CDI names change."""
    requests = host.get("DeviceRequests")
    if not requests:
        return []
    from wherry.engine.cdi import find_edits

    return find_edits(requests)


def _user_name() -> str:
    """The name of the user that `--userns keep-id` keeps."""
    if sys.platform == "win32":
        return ""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""


def block_devices(host: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """The numbers of the devices whose traffic is limited."""
    paths_of = {entry["Path"] for key in _DEVICE_LIMITS for entry in host.get(key) or ()}
    found = {}
    for path in paths_of:
        try:
            status = posix.stat(path)
        except OSError as error:
            raise NotFound(f"no such device: {path}") from error
        if stat.S_ISBLK(status.st_mode):
            found[path] = (posix.major(status.st_rdev), posix.minor(status.st_rdev))
    return found


def why_no_user_namespace(body: Mapping[str, Any]) -> str:
    """What keeps root's container from a user namespace of its own; "" for nothing.

    Capabilities over what is shared with the host exist only in the host's user
    namespace: whoever asks for the host's network as root wants to use it as root.
    """
    host = body["HostConfig"]
    if (host.get("UsernsMode") or "").startswith("auto"):
        return ""  # it is the very thing that was asked for
    if host.get("Privileged"):
        return "--privileged"
    if host.get("UsernsMode") == "host":
        return "--userns host"
    for kind in ("network", "pid", "ipc"):
        if mode(body, kind) == "host":
            return f"--{kind} host"
    if host.get("DeviceCgroupRules"):
        # What it allows are nodes that the container makes itself.
        return "--device-cgroup-rule"
    for name in host.get("CapAdd") or ():
        bare = name.upper().removeprefix("CAP_")
        if bare in _HOST_CAPABILITIES:
            return f"--cap-add {bare}"
    return ""


def _time_zone(own: Mapping[str, Any]) -> list[Mount]:
    """The host's description of the time zone that `--tz` names, as /etc/localtime."""
    name = own.get("Timezone") or ""
    if not name:
        return []
    return [
        {
            "destination": "/etc/localtime",
            "type": "bind",
            "source": time_zone_file(name),
            "options": ["bind", "ro"],
        }
    ]


def time_zone_file(name: str) -> str:
    """The file of an IANA name, or of "local". Raises UsageError."""
    directory = os.path.realpath("/usr/share/zoneinfo")
    path = "/etc/localtime" if name == "local" else os.path.join(directory, name)
    path = os.path.realpath(path)
    if not path.startswith(f"{directory}/") or not os.path.isfile(path):
        raise UsageError(
            f"unknown time zone {name}",
            hint=f"the names are those of the files below {directory}",
        )
    return path


def _changes_owners(maps: tuple[list[IDMapping], list[IDMapping]] | None) -> bool:
    """Whether a file has another owner in the container than here."""
    return maps is not None and any(
        entry["containerID"] != entry["hostID"] for kind in maps for entry in kind
    )


def _idmap(spec: Spec, given: Sequence[Mount]) -> None:
    """Have what comes from the host idmapped, so that its files keep their owners.

    `given` are the volumes, binds and files among the spec's mounts; the root is one, too.
    """
    own = {mount["destination"] for mount in given}
    for mount in spec["mounts"]:
        if mount["destination"] != "/" and mount["destination"] not in own:
            continue
        options = mount.setdefault("options", [])
        is_mapped = mount.get("uidMappings") or "idmap" in options
        if mount["type"] in ("bind", "overlay") and not is_mapped:
            options.append("x-wherry.idmap")


def _bound_root(path: str) -> Mount:
    """A directory of the host, as the mount that becomes the root."""
    return {"destination": "/", "type": "bind", "source": path, "options": ["rbind"]}


def root_overlay(container: Container) -> Mount:
    """The container's layers, as the mount that becomes its root."""
    return overlay_mount(
        "/",
        mounts.lower_directories(container)
        or [make_dir(os.path.join(paths.layers(), "empty"), 0o755)],
        upper=container.path("upper"),
        work=container.path("work"),
    )
