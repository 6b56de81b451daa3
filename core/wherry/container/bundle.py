"""From what the user asked to an OCI runtime-spec document.

`runtime_spec` is pure: docker's create body, an image's config and the facts of this
machine go in, a bundle's config.json comes out. Who finds out the facts (paths of
volumes, id maps, devices) is the engine with its Runtime; what is done with the
document is the Runtime's.

Annotations carry what the specification has no word for, or what only the image knows:

    org.wherry.user     `--user` as given, always there; names, the group of a bare uid
                        and supplementary groups are looked up inside the container
    org.wherry.groups   the `--group-add` values that are names, comma-separated
    org.wherry.init     "true" with `--init`
    org.opencontainers.image.architecture
                        what processor the programs are for, if it is another than here
"""

from __future__ import annotations

from wherry.container.default_mounts import mounts
from wherry.container.namespaces import (
    NAMESPACES,
    mode,
    namespaces,
    own_section,
    sysctls,
    time_offsets,
)
from wherry.container.process import container_process
from wherry.container.resources import resources
from wherry.errors import UsageError
from wherry.lean import load_json
from wherry.oci import (
    ARCHITECTURE_ANNOTATION,
    GROUPS_ANNOTATION,
    INIT_ANNOTATION,
    KEEP_GROUPS_ANNOTATION,
    MTAB_ANNOTATION,
    OCI_VERSION,
    PASSWD_ANNOTATION,
    USER_ANNOTATION,
)
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from wherry.oci.runtime_spec import (
        IDMapping,
        Linux,
        LinuxDevice,
        LinuxSeccomp,
        Mount,
        Process,
        Spec,
    )


MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@value
class HostDevice:
    """A device of the host that the container gets, and how it may use it (`rwm`)."""

    device: LinuxDevice
    access: str


@value
class ContainerFacts:
    """What `runtime_spec` has to know and the create body cannot say."""

    id: str
    # The prepared root file system.
    rootfs: str
    # What the machine is called: the container's name for itself with `--uts host`.
    machine_hostname: str = ""
    rootless: bool = False
    # Who runs the command.
    user_name: str = ""
    # None: no user namespace of its own.
    uid_maps: Sequence[IDMapping] | None = None
    gid_maps: Sequence[IDMapping] | None = None
    # The groups that there are for who has no user namespace of its own; None: every one.
    host_gids: Sequence[IDMapping] | None = None
    # Volumes, binds, secrets, generated files: host paths that exist, in the order given.
    mounts: Sequence[Mount] = ()
    # Namespaces to join, by type: those of `container:ID`, and a network made beforehand.
    # With "user" among them, the others belong to that user namespace.
    namespace_paths: Mapping[str, str] = {}
    # The namespaces that this kernel has.
    namespaces: Sequence[str] = NAMESPACES
    cgroup_path: str | None = None
    # The mount namespace whose /dev/shm the container shares (`--ipc container:ID`).
    shm_namespace: str | None = None
    # The capabilities that this process can give; None for all that Linux has.
    capabilities: Sequence[str] | None = None
    # Devices of `--device`, or all of them with `--privileged`.
    devices: Sequence[HostDevice] = ()
    # (major, minor) of the block devices that `--device-read-bps` and its kin name.
    block_devices: Mapping[str, tuple[int, int]] = {}
    # CPUs of this machine, each with a thermal record to hide.
    cpus: int = 0
    # Turns a profile in docker's format (None: the default profile) and the container's
    # capabilities into runtime-spec's form. None where the kernel cannot filter.
    seccomp: Callable[[Mapping[str, Any] | None, Sequence[str]], LinuxSeccomp] | None = None


def merge_image_config(
    body: Mapping[str, Any], image_config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The create body with what the image says where the user said nothing.

    `image_config` is the image's whole config document. Merge once, and keep the result:
    afterwards `--entrypoint ""` can no longer be told from no `--entrypoint`.
    """
    image = (image_config or {}).get("config") or {}
    merged = dict(body)
    merged["Env"] = _merge_env(body, image.get("Env") or ())
    entrypoint, command = body.get("Entrypoint"), body.get("Cmd")
    if not entrypoint:
        command = command or image.get("Cmd")
        if entrypoint is None:
            entrypoint = image.get("Entrypoint")
    merged["Entrypoint"] = None if entrypoint == [""] else entrypoint
    merged["Cmd"] = command
    for key in ("User", "WorkingDir", "StopSignal"):
        merged[key] = body.get(key) or image.get(key) or ""
    merged["Healthcheck"] = _merge_healthcheck(
        body.get("Healthcheck") or {}, image.get("Healthcheck") or {}
    )
    for key in ("Labels", "ExposedPorts", "Volumes"):
        merged[key] = {**(image.get(key) or {}), **(body.get(key) or {})}
    return merged


def _merge_env(body: Mapping[str, Any], image_env: Sequence[str]) -> list[str]:
    """The user's variables, then those of the image that the user did not name."""
    given = list(body.get("Env") or ())
    own = own_section(body)
    if own.get("UnsetEnvAll"):
        return given
    named = {entry.partition("=")[0] for entry in given} | set(own.get("UnsetEnv") or ())
    return given + [entry for entry in image_env if entry.partition("=")[0] not in named]


def _merge_healthcheck(given: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any] | None:
    """Each setting on its own: `--health-interval` keeps the image's command."""
    merged = {**image, **{key: setting for key, setting in given.items() if setting}}
    return merged or None


def runtime_spec(
    body: Mapping[str, Any], image_config: Mapping[str, Any] | None, facts: ContainerFacts
) -> Spec:
    """The config.json of a container. Raises UsageError where the body makes no sense.

    `image_config` is None for a body that is merged with its image's already.
    """
    if image_config is not None:
        body = merge_image_config(body, image_config)
    host: Mapping[str, Any] = body.get("HostConfig") or {}
    security = security_options(host.get("SecurityOpt") or ())
    has_own_name = mode(body, "uts") != "host"
    hostname = str(body.get("Hostname") or facts.id[:12])
    process = container_process(
        body,
        facts,
        hostname=hostname if has_own_name else facts.machine_hostname,
        no_new_privileges=_is_true(security.get("no-new-privileges")),
    )
    if security.get("apparmor", "unconfined") != "unconfined":
        process["apparmorProfile"] = security["apparmor"]
    spec: Spec = {
        "ociVersion": OCI_VERSION,
        "root": {"path": facts.rootfs, "readonly": bool(host.get("ReadonlyRootfs"))},
        "process": process,
        "mounts": mounts(body, facts, writable_cgroups=_is_true(security.get("writable-cgroups"))),
        "annotations": {**_annotations(body, host), **_passwd(body, host, facts)},
        "linux": _linux(body, host, facts, has_system_paths="systempaths" in security),
    }
    if has_own_name:
        spec["hostname"] = hostname
        if domain := body.get("Domainname"):
            spec["domainname"] = domain
    if seccomp := _seccomp(host, security, process, facts):
        spec["linux"]["seccomp"] = seccomp
    return spec


_BOOLEAN = ("true", "false")
# The options, and what each may be set to; none listed: anything.
_SECURITY_OPTIONS: dict[str, tuple[str, ...]] = {
    "apparmor": (),
    "label": (),
    "no-new-privileges": _BOOLEAN,
    "seccomp": (),
    "systempaths": ("unconfined",),
    "writable-cgroups": _BOOLEAN,
}


def security_options(options: Sequence[str]) -> dict[str, str]:
    """`--security-opt` by key. Raises UsageError.

    `label` is SELinux's and means nothing without it.
    """
    result: dict[str, str] = {}
    for option in options:
        # docker's older spelling has a colon, as in `no-new-privileges:true`.
        separator = "=" if "=" in option else ":"
        key, found, content = option.partition(separator)
        if not found and key == "no-new-privileges":
            content = found = "true"
        words = _SECURITY_OPTIONS.get(key)
        if words is None or not found or (words and content not in words):
            raise UsageError(
                f'invalid --security-opt: "{option}"',
                hint=f"it reads {key}={'|'.join(words)}"
                if words
                else f"the options are {', '.join(_SECURITY_OPTIONS)}",
            )
        result[key] = content
    return result


def _is_true(option: str | None) -> bool:
    return option == "true"


def _seccomp(
    host: Mapping[str, Any],
    security: Mapping[str, str],
    process: Process,
    facts: ContainerFacts,
) -> LinuxSeccomp | None:
    """The filter; a privileged container has none unless it asks for one."""
    chosen = security.get("seccomp", "unconfined" if host.get("Privileged") else "builtin")
    if chosen == "unconfined" or facts.seccomp is None:
        return None
    profile = None
    if chosen != "builtin":
        try:
            profile = load_json(chosen)
        except ValueError as error:
            raise UsageError(f"cannot read the seccomp profile: {error}") from error
        if not isinstance(profile, dict):
            raise UsageError("cannot read the seccomp profile: it is not a JSON object")
    return facts.seccomp(profile, process["capabilities"]["bounding"])


def _linux(
    body: Mapping[str, Any],
    host: Mapping[str, Any],
    facts: ContainerFacts,
    *,
    has_system_paths: bool,
) -> Linux:
    linux: Linux = {
        "namespaces": namespaces(body, facts),
        "resources": resources(body, facts),
        "sysctl": sysctls(body, facts),
    }
    if facts.uid_maps is not None and "user" not in facts.namespace_paths:
        linux["uidMappings"] = list(facts.uid_maps)
        linux["gidMappings"] = list(facts.gid_maps or ())
    if facts.cgroup_path is not None:
        linux["cgroupsPath"] = facts.cgroup_path
    if facts.devices:
        linux["devices"] = [device.device for device in facts.devices]
    if offsets := time_offsets(body):
        if {"type": "time"} not in linux["namespaces"]:
            raise UsageError(
                "--clock-offset needs a time namespace of the container's own",
                hint="the kernel has none (CONFIG_TIME_NS), or the container shares another's",
            )
        linux["timeOffsets"] = offsets
    if propagation := _rootfs_propagation(facts.mounts):
        linux["rootfsPropagation"] = propagation
    if domain := own_section(body).get("Personality"):
        linux["personality"] = {"domain": str(domain).upper()}
    if not host.get("Privileged") and not has_system_paths:
        masked, readonly = host.get("MaskedPaths"), host.get("ReadonlyPaths")
        linux["maskedPaths"] = _masked_paths(facts) if masked is None else list(masked)
        linux["readonlyPaths"] = list(READONLY_PATHS if readonly is None else readonly)
    return linux


def _masked_paths(facts: ContainerFacts) -> list[str]:
    # What a CPU's temperature tells about others is a side channel.
    return [
        *MASKED_PATHS,
        *(f"/sys/devices/system/cpu/cpu{cpu}/thermal_throttle" for cpu in range(facts.cpus)),
    ]


def _rootfs_propagation(given: Sequence[Mount]) -> str:
    """The root has to propagate for a mount in it to."""
    options = {option for mount in given for option in mount.get("options") or ()}
    if options & {"shared", "rshared"}:
        return "shared"
    return "slave" if options & {"slave", "rslave"} else ""


def _passwd(
    body: Mapping[str, Any], host: Mapping[str, Any], facts: ContainerFacts
) -> dict[str, str]:
    """The name for a user that the image does not know, where it is to have one."""
    keeps_id = str(host.get("UsernsMode") or "").startswith("keep-id")
    wanted = own_section(body).get("Passwd")
    # What is mounted there is not the container's to change.
    is_mounted = any(mount["destination"] in ("/etc", "/etc/passwd") for mount in facts.mounts)
    if is_mounted or not (keeps_id if wanted is None else wanted):
        return {}
    return {PASSWD_ANNOTATION: facts.user_name if keeps_id else ""}


def _annotations(body: Mapping[str, Any], host: Mapping[str, Any]) -> dict[str, str]:
    annotations = {
        key: text
        for key, text in (host.get("Annotations") or {}).items()
        if not key.startswith("org.wherry.")
    }
    annotations[USER_ANNOTATION] = str(body.get("User") or "")
    groups = [str(group) for group in host.get("GroupAdd") or ()]
    names = [group for group in groups if not group.isdecimal() and group != "keep-groups"]
    if names:
        annotations[GROUPS_ANNOTATION] = ",".join(names)
    if "keep-groups" in groups:
        annotations[KEEP_GROUPS_ANNOTATION] = "1"
    if host.get("Init"):
        annotations[INIT_ANNOTATION] = "true"
    own = own_section(body)
    # A build's layers, and a directory of the user's, are to get nothing that nobody asked for.
    if not own.get("Build") and not own.get("Rootfs"):
        annotations[MTAB_ANNOTATION] = "true"
    if architecture := own.get("Architecture"):
        annotations[ARCHITECTURE_ANNOTATION] = architecture
    return annotations
