"""What a create body may not say, in docker's words."""

from __future__ import annotations

from wherry.container.mount import mounts_of
from wherry.container.ports import port_key
from wherry.container.signals import read_signal
from wherry.errors import Conflict, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.container.spec import CreateBody, HostConfig, RestartPolicy

_RUNTIMES = ("wherry", "runc", "crun", "io.containerd.runc.v2")
_POLICIES = ("no", "always", "on-failure", "unless-stopped")
_MILLISECOND = 1_000_000
_LEAST_MEMORY = 6 << 20
_NANO = 1_000_000_000


def check_body(body: CreateBody) -> None:
    """Raise UsageError where the parts of a body contradict each other or docker's rules."""
    host = body.get("HostConfig") or {}
    _check_config(body)
    check_lifetime(body, host)
    _check_modes(body, host)
    check_resources(host)
    _check_security(host)
    mounts_of(body)


def _check_config(body: CreateBody) -> None:
    hostname = body.get("Hostname") or ""
    if len(hostname) > 64 or not hostname.isprintable() or set(" /") & set(hostname):
        raise UsageError(f"invalid hostname format: {hostname}")
    directory = body.get("WorkingDir") or ""
    if directory and not directory.startswith("/"):
        raise UsageError(
            f"the working directory '{directory}' is invalid, it needs to be an absolute path"
        )
    if signal := body.get("StopSignal"):
        read_signal(signal)
    if (body.get("StopTimeout") or 0) < -1:
        raise UsageError(f"invalid stop timeout {body['StopTimeout']}: -1 waits forever")
    for entry in body.get("Env") or ():
        if not entry.partition("=")[0]:
            raise UsageError(f"invalid environment variable: {entry}")
    health = body.get("Healthcheck") or {}
    for key in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
        time = health.get(key) or 0
        if isinstance(time, int) and time and time < _MILLISECOND:
            raise UsageError(f"{key} in Healthcheck cannot be less than 1ms")
    if (health.get("Retries") or 0) < 0:
        raise UsageError("Retries in Healthcheck cannot be negative")
    for port in body.get("ExposedPorts") or ():
        port_key(port)


def check_lifetime(body: CreateBody, host: HostConfig) -> None:
    """Raise UsageError where what is to happen at the end of a run contradicts itself."""
    policy = host.get("RestartPolicy") or {}
    check_restart_policy(policy)
    if host.get("AutoRemove") and policy.get("Name") not in (None, "", "no"):
        raise UsageError("conflicting options: cannot specify both --restart and --rm")
    own = body.get("Wherry") or {}
    if own.get("RemoveImage") and not host.get("AutoRemove"):
        raise UsageError("--rmi needs --rm")
    if (own.get("Timeout") or 0) < 0:
        raise UsageError(f"invalid timeout {own['Timeout']}: it is a number of seconds")
    _check_log(body, host)
    if (host.get("Runtime") or _RUNTIMES[0]) not in _RUNTIMES:
        raise UsageError(
            f"Unknown runtime specified {host['Runtime']}",
            hint=f"wherry is its own runtime; the names {', '.join(_RUNTIMES)} stand for it",
        )
    if (host.get("Isolation") or "default") != "default":
        raise UsageError(f"invalid isolation '{host['Isolation']}' on linux")
    if (host.get("VolumeDriver") or "local") != "local":
        raise UsageError(
            f'error looking up volume plugin {host["VolumeDriver"]}: plugin "'
            f'{host["VolumeDriver"]}" not found',
            hint='there is one driver: "local"',
        )


_MODE_WORDS = {
    "PidMode": ("--pid: invalid PID mode", ("host", "private"), True),
    "UTSMode": ("--uts: invalid UTS mode", ("host", "private"), False),
    "IpcMode": ("invalid IPC mode", ("host", "private", "shareable", "none"), True),
    "CgroupnsMode": ("--cgroupns: invalid CGROUP mode", ("host", "private"), False),
}


def _check_modes(body: CreateBody, host: HostConfig) -> None:
    for key, (wrong, words, may_join) in _MODE_WORDS.items():
        mode = str(host.get(key) or "")
        kind, colon, target = mode.partition(":")
        if mode and mode not in words and not (may_join and kind == "container" and target):
            shown = "container:" if kind == "container" and colon else mode
            raise UsageError(f"{wrong}: {shown!r}" if key == "IpcMode" else wrong)
    if host.get("UsernsMode"):
        from wherry.container.userns import check_userns

        check_userns(host["UsernsMode"])
    network = host.get("NetworkMode") or ""
    if network.partition(":")[0] == "container":
        _check_joined_network(body, host, network)
    if network == "host" and host.get("Links"):
        raise UsageError(
            "conflicting options: host type networking can't be used with links. "
            "This would result in undefined behavior"
        )
    if host.get("UTSMode") == "host" and body.get("Hostname"):
        raise UsageError("conflicting options: hostname and the UTS mode")
    offsets = (body.get("Wherry") or {}).get("ClockOffsets")
    if offsets and (body.get("Wherry") or {}).get("TimeMode") == "host":
        raise UsageError("conflicting options: --clock-offset and the host's time namespace")


def _check_joined_network(body: CreateBody, host: HostConfig, mode: str) -> None:
    """A container in another's network has nothing of its own to set there."""
    if not mode.partition(":")[2]:
        raise UsageError("invalid container format container:<name|id>")
    settings = (
        (body.get("Hostname"), "hostname and the network mode"),
        (host.get("Links"), "links and the container type network mode"),
        (host.get("Dns"), "dns and the network mode"),
        (host.get("ExtraHosts"), "custom host-to-IP mapping and the network mode"),
        (body.get("MacAddress"), "mac-address and the network mode"),
        (
            host.get("PortBindings") or host.get("PublishAllPorts"),
            "port publishing and the container type network mode",
        ),
        (body.get("ExposedPorts"), "port exposing and the container type network mode"),
    )
    for given, what in settings:
        if given:
            raise UsageError(f"conflicting options: {what}")


def check_resources(host: HostConfig) -> None:
    """Raise UsageError where limits make no sense, alone or together."""
    memory = host.get("Memory") or 0
    swap = host.get("MemorySwap") or 0
    reservation = host.get("MemoryReservation") or 0
    if 0 < memory < _LEAST_MEMORY:
        raise UsageError("Minimum memory limit allowed is 6MB")
    if 0 < reservation < _LEAST_MEMORY:
        raise UsageError("Minimum memory reservation allowed is 6MB")
    if swap > 0 and not memory:
        raise UsageError(
            "You should always set the Memory limit when using Memoryswap limit, see usage"
        )
    if swap > 0 and swap < memory:
        raise UsageError("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory and reservation > memory:
        raise UsageError(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    swappiness = host.get("MemorySwappiness")
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise UsageError(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    period, quota = host.get("CpuPeriod") or 0, host.get("CpuQuota") or 0
    if host.get("NanoCpus"):
        for given, what in ((period, "CPU Period"), (quota, "CPU Quota")):
            if given:
                raise UsageError(f"Conflicting options: Nano CPUs and {what} cannot both be set")
    if period and not 1000 <= period <= 1_000_000:
        raise UsageError(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < quota < 1000:
        raise UsageError("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if (host.get("CpuShares") or 0) < 0:
        raise UsageError(f"invalid CPU shares ({host['CpuShares']}): value must not be negative")
    weight = host.get("BlkioWeight") or 0
    if weight and not 10 <= weight <= 1000:
        raise UsageError("Range of blkio weight is from 10 to 1000")
    score = host.get("OomScoreAdj") or 0
    if not -1000 <= score <= 1000:
        raise UsageError(f"Invalid value {score}, range for oom score adj is [-1000, 1000]")
    if (host.get("ShmSize") or 0) < 0:
        raise UsageError("SHM size can not be less than 0")
    for key in ("CpusetCpus", "CpusetMems"):
        text = str(host.get(key) or "")
        if text and not _is_cpu_list(text):
            what = "cpus" if key == "CpusetCpus" else "mems"
            raise UsageError(f"Invalid value {text} for cpuset {what}")


def check_processors(host: HostConfig, count: int, cpus: str, nodes: str) -> None:
    """Raise UsageError for more than the machine has: `count` CPUs; `cpus` and `nodes` as lists."""
    nano = host.get("NanoCpus") or 0
    if nano and not _NANO // 100 <= nano <= count * _NANO:
        raise UsageError(
            f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
        )
    for wanted, available, what in (
        (str(host.get("CpusetCpus") or ""), cpus, "CPUs"),
        (str(host.get("CpusetMems") or ""), nodes, "memory nodes"),
    ):
        if wanted and not _is_within(wanted, available):
            raise UsageError(
                f"Requested {what} are not available - requested {wanted}, available: {available}"
            )


def _is_within(wanted: str, available: str) -> bool:
    """Whether all numbers of a list are in another, whose ranges do not touch each other."""
    ranges = _ranges(available)
    return all(
        any(low <= first and last <= high for low, high in ranges)
        for first, last in _ranges(wanted)
    )


def _ranges(text: str) -> list[tuple[int, int]]:
    pairs = (part.partition("-") for part in text.split(",") if part)
    return [(int(first), int(last or first)) for first, _, last in pairs]


def check_update(host: HostConfig, changes: HostConfig) -> None:
    """Raise Conflict where `changes` contradict what a container was made with."""
    for key, what in (("CpuPeriod", "CPU Period"), ("CpuQuota", "CPU Quota")):
        if changes.get(key) and host.get("NanoCpus"):
            raise Conflict(
                f"Conflicting options: {what} cannot be updated as NanoCPUs has already been set"
            )
        if changes.get("NanoCpus") and host.get(key):
            raise Conflict(
                f"Conflicting options: Nano CPUs cannot be updated as {what} has already been set"
            )
    swap = host.get("MemorySwap") or 0
    if not changes.get("MemorySwap") and 0 < swap < (changes.get("Memory") or 0):
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, "
            "update the memoryswap at the same time"
        )
    if (changes.get("RestartPolicy") or {}).get("Name", "no") != "no" and host.get("AutoRemove"):
        raise Conflict(
            "Restart policy cannot be updated because AutoRemove is enabled for the container"
        )


def _is_cpu_list(text: str) -> bool:
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not (last.isdecimal() and int(first) <= int(last))):
            return False
    return True


def _check_security(host: HostConfig) -> None:
    for option in host.get("SecurityOpt") or ():
        key, separator, content = option.partition("=")
        if not separator:
            key, separator, content = option.partition(":")
        if key in ("no-new-privileges", "writable-cgroups"):
            known = content in ("", "true", "false", "1", "0")
        else:
            known = bool(content) and key in ("seccomp", "apparmor", "label", "systempaths")
        if not known:
            raise UsageError(f'Invalid --security-opt: "{option}"')


def _check_log(body: CreateBody, host: HostConfig) -> None:
    config = host.get("LogConfig") or {}
    # Most commands say nothing of a log, and need not know what one could say.
    if config.get("Config") or config.get("Type") not in (None, "", "json-file"):
        from wherry.container.log_drivers import check_log

        check_log(host, has_terminal=bool(body.get("Tty")))


def check_restart_policy(policy: RestartPolicy) -> None:
    """Raise UsageError where a policy makes no sense."""
    name, count = policy.get("Name") or "no", policy.get("MaximumRetryCount") or 0
    if name not in _POLICIES:
        raise UsageError(
            f"invalid restart policy: unknown policy '{name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if name != "on-failure" and count:
        raise UsageError(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    if count < 0:
        raise UsageError("invalid restart policy: maximum retry count cannot be negative")
