"""What a spec may ask for, checked before anything is made: an error, never half a container."""

from __future__ import annotations

import os

from wherry.errors import Unsupported, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.oci.runtime_spec import Hooks, Linux, Mount, Process, Spec

_PERSONALITIES = ("LINUX", "LINUX32")
_IO_CLASSES = ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")
# Parameters that a namespace has its own of; any other would be the host's.
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}"
    for name in (
        "msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced",
    )
)  # fmt: skip


def check_spec(spec: Spec) -> None:
    """Raise UsageError or Unsupported for what cannot be done as it is asked for."""
    from wherry_linux.mounts import is_idmapped

    _check_version(str(spec.get("ociVersion", "")))
    check_process(spec["process"])
    linux = spec["linux"]
    namespaces = linux.get("namespaces") or []
    kinds = [namespace.get("type") for namespace in namespaces]
    if linux.get("timeOffsets") and "time" not in kinds:
        raise UsageError("linux.timeOffsets needs a time namespace")
    if "mount" not in kinds:
        raise UsageError("linux.namespaces has to have a mount namespace")
    if (spec.get("hostname") or spec.get("domainname")) and "uts" not in kinds:
        raise UsageError("hostname and domainname need a uts namespace")
    new = {namespace["type"] for namespace in namespaces if not namespace.get("path")}
    if "user" in new and not (linux.get("uidMappings") and linux.get("gidMappings")):
        raise UsageError("a new user namespace needs linux.uidMappings and linux.gidMappings")
    for entry in spec.get("mounts") or []:
        if is_idmapped(entry):
            _check_idmap(entry, has_users="user" in kinds)
    for name in linux.get("sysctl") or {}:
        _check_sysctl(name, set(map(str, kinds)))
    _check_linux(linux)
    check_hooks(spec.get("hooks") or {})


def _check_idmap(entry: Mount, *, has_users: bool) -> None:
    what = f"cannot idmap the mount on {entry['destination']}"
    is_bind = not {"bind", "rbind"}.isdisjoint(entry.get("options") or ())
    if not is_bind and entry.get("type") not in ("bind", "overlay"):
        raise UsageError(f"{what}: only what is bound from the host can be")
    uids, gids = entry.get("uidMappings"), entry.get("gidMappings")
    if bool(uids) != bool(gids):
        raise UsageError(f"{what}: it has mappings of {'user' if uids else 'group'} ids only")
    if not uids and not has_users:
        raise UsageError(
            f"{what}: the container has no user namespace, and the mount no mappings of its own"
        )


def _check_version(version: str) -> None:
    numbers = version.partition("-")[0].partition("+")[0].split(".")
    if len(numbers) != 3 or not all(number.isdigit() for number in numbers):
        raise UsageError(f"ociVersion {version!r} is not a version")
    if numbers[0] != "1":
        raise UsageError(f"unsupported ociVersion {version!r}", hint="this is a runtime for 1.x")


def check_process(process: Process) -> None:
    """The part that `exec` has as well."""
    seen: set[str] = set()
    for limit in process.get("rlimits") or []:
        if limit["type"] in seen:
            raise UsageError(f"process.rlimits has {limit['type']} twice")
        seen.add(limit["type"])
    priority = process.get("ioPriority")
    if priority and priority.get("class") not in _IO_CLASSES:
        raise UsageError(f"unknown ioPriority class {priority.get('class')!r}")
    if priority and not 0 <= priority.get("priority", 0) <= 7:
        raise UsageError("process.ioPriority.priority is 0 to 7")
    if process.get("apparmorProfile") and not os.path.isdir("/sys/kernel/security/apparmor"):
        raise Unsupported(
            f"cannot apply AppArmor profile {process['apparmorProfile']}:"
            " this kernel has no AppArmor"
        )
    if process.get("selinuxLabel"):
        _need_selinux(process["selinuxLabel"])


def read_numbers(text: str) -> list[int]:
    """`0-2,5` as numbers. Raises UsageError."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise UsageError(f"invalid list of processors {text!r}", hint="it reads as in 0-2,5")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _need_selinux(label: str) -> None:
    if not os.path.isdir("/sys/fs/selinux"):
        raise Unsupported(f"cannot apply SELinux label {label}: this kernel has no SELinux")


def _check_sysctl(name: str, kinds: set[str]) -> None:
    if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        needed = "ipc"
    elif name.startswith("net."):
        needed = "network"
    elif name == "kernel.domainname":
        needed = "uts"
    else:
        raise UsageError(f"sysctl {name} is the host's: no namespace has its own")
    if needed not in kinds:
        raise UsageError(f"sysctl {name} needs a namespace of kind {needed}")


def _check_linux(linux: Linux) -> None:
    persona = linux.get("personality")
    if persona and persona.get("domain") not in _PERSONALITIES:
        raise UsageError(f"unknown personality {persona.get('domain')!r}")
    if persona and persona.get("flags"):
        raise UsageError("linux.personality.flags: there is none that is defined")
    if linux.get("mountLabel"):
        _need_selinux(linux["mountLabel"])
    if linux.get("memoryPolicy"):
        from wherry_linux import memory_policy

        memory_policy.arguments(linux["memoryPolicy"])
    if linux.get("intelRdt"):
        from wherry_linux import resctrl

        resctrl.check(linux["intelRdt"])
        resctrl.mount_point()
    if linux.get("netDevices"):
        _check_net_devices(linux)
    resources = linux.get("resources")
    if resources and resources.keys() - {"devices"}:
        from wherry_linux.limits import writes

        writes(resources)


def _check_net_devices(linux: Linux) -> None:
    from wherry_linux.network.devices import check_name

    kinds = {namespace["type"] for namespace in linux.get("namespaces") or []}
    if "network" not in kinds:
        raise UsageError("linux.netDevices needs a network namespace")
    names = [device.get("name") or name for name, device in linux["netDevices"].items()]
    for name in (*linux["netDevices"], *names):
        if not check_name(name):
            raise UsageError(f"linux.netDevices: {name!r} is not the name of an interface")
    for name in names:
        if "%" not in name and names.count(name) > 1:
            raise UsageError(f"linux.netDevices: two devices are to be called {name}")


def check_hooks(hooks: Hooks) -> None:
    """Paths are absolute, and no time is too short."""
    for kind, entries in hooks.items():
        for hook in entries or ():  # type: ignore[attr-defined]
            if not str(hook.get("path", "")).startswith("/"):
                raise UsageError(f"hooks.{kind}: path {hook.get('path')!r} is not absolute")
            timeout = hook.get("timeout")
            if timeout is not None and timeout <= 0:
                raise UsageError(f"hooks.{kind}: timeout {timeout} is not greater than zero")
