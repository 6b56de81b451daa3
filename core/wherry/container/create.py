"""From the options of `run` and `create` to docker's create body.

Portable and pure: what comes from the host (files, environment, the current directory)
is in the values already, put there by `wherry.cli.host`.
"""

from __future__ import annotations

from wherry.container import endpoint, limits
from wherry.container.check import check_body, check_restart_policy
from wherry.container.env import merge_env
from wherry.container.mount import absolute_bind, check_target, parse_bind, parse_mount
from wherry.container.ports import parse_expose, parse_publish
from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from wherry.container.spec import (
        CreateBody,
        EndpointSettings,
        HealthConfig,
        HostConfig,
        LogConfig,
        RestartPolicy,
        StartupHealth,
        WherryConfig,
    )

    Values = Mapping[str, Any]

# Networks that are a mode of the container, and no network that it joins.
_MODES = ("default", "bridge", "host", "none", "private", "slirp4netns", "pasta")


def create_body(values: Values) -> CreateBody:
    """The create body of what was asked. Raises UsageError."""
    body: CreateBody = {
        "Image": values["image"],
        "Env": merge_env(values["env"]),
        "Cmd": list(values["command"]) or None,
        "Entrypoint": None if values["entrypoint"] is None else [values["entrypoint"]],
        "Labels": _labels(values["label"]),
        "HostConfig": _host_config(values),
        "NetworkingConfig": {"EndpointsConfig": _endpoints(values)},
    }
    _add_streams(body, values)
    _add_ports(body, values)
    for key, name in _CONFIG:
        if values[name]:
            body[key] = values[name]  # type: ignore[literal-required]
    if values["stop_timeout"] is not None:
        body["StopTimeout"] = values["stop_timeout"]
    if anonymous := [text for text in values["volume"] if ":" not in text]:
        body["Volumes"] = {parse_bind(text)["Target"]: {} for text in anonymous}
    if health := _health(values):
        body["Healthcheck"] = health
    if own := _own(values):
        body["Wherry"] = own
    check_body(body)
    return body


_CONFIG = (
    ("Hostname", "hostname"),
    ("Domainname", "domainname"),
    ("User", "user"),
    ("WorkingDir", "workdir"),
    ("MacAddress", "mac_address"),
    ("StopSignal", "stop_signal"),
)

# Keys of HostConfig that take a value as it is, where it says anything.
_HOST = (
    ("AutoRemove", "rm"),
    ("BlkioWeight", "blkio_weight"),
    ("CapAdd", "cap_add"),
    ("CapDrop", "cap_drop"),
    ("CgroupParent", "cgroup_parent"),
    ("CgroupnsMode", "cgroupns"),
    ("ContainerIDFile", "cidfile"),
    ("CpuPeriod", "cpu_period"),
    ("CpuQuota", "cpu_quota"),
    ("CpuShares", "cpu_shares"),
    ("CpusetCpus", "cpuset_cpus"),
    ("CpusetMems", "cpuset_mems"),
    ("DeviceCgroupRules", "device_cgroup_rule"),
    ("Dns", "dns"),
    ("DnsOptions", "dns_option"),
    ("DnsSearch", "dns_search"),
    ("ExtraHosts", "add_host"),
    ("GroupAdd", "group_add"),
    ("IpcMode", "ipc"),
    ("Isolation", "isolation"),
    ("Memory", "memory"),
    ("MemoryReservation", "memory_reservation"),
    ("MemorySwap", "memory_swap"),
    ("NanoCpus", "cpus"),
    ("OomScoreAdj", "oom_score_adj"),
    ("PidMode", "pid"),
    ("PidsLimit", "pids_limit"),
    ("Privileged", "privileged"),
    ("PublishAllPorts", "publish_all"),
    ("ReadonlyRootfs", "read_only"),
    ("Runtime", "runtime"),
    ("SecurityOpt", "security_opt"),
    ("ShmSize", "shm_size"),
    ("UTSMode", "uts"),
    ("UsernsMode", "userns"),
    ("VolumeDriver", "volume_driver"),
    ("VolumesFrom", "volumes_from"),
)

_THROTTLES = (
    ("BlkioDeviceReadBps", "device_read_bps", limits.read_throttle_bps),
    ("BlkioDeviceWriteBps", "device_write_bps", limits.read_throttle_bps),
    ("BlkioDeviceReadIOps", "device_read_iops", limits.read_throttle_iops),
    ("BlkioDeviceWriteIOps", "device_write_iops", limits.read_throttle_iops),
    ("BlkioWeightDevice", "blkio_weight_device", limits.read_weight_device),
)


def _host_config(values: Values) -> HostConfig:
    host: dict[str, Any] = {
        "Binds": [absolute_bind(text) for text in values["volume"] if ":" in text],
        "NetworkMode": _network_mode(values),
        "RestartPolicy": read_restart_policy(values["restart"]),
        "LogConfig": _log_config(values),
    }
    for key, name in _HOST:
        if given := values[name]:
            host[key] = list(given) if isinstance(given, tuple) else given
    for key, name, read in _THROTTLES:
        if values[name]:
            host[key] = [read(text) for text in values[name]]
    if values["mount"]:
        host["Mounts"] = [parse_mount(text) for text in values["mount"]]
    if values["tmpfs"]:
        host["Tmpfs"] = _tmpfs(values["tmpfs"])
    if values["ulimit"]:
        ulimits = [limits.read_ulimit(text) for text in values["ulimit"]]
        host["Ulimits"] = list({each["Name"]: each for each in ulimits}.values())
    if values["sysctl"]:
        host["Sysctls"] = _pairs(values["sysctl"])
    if values["annotation"]:
        host["Annotations"] = _pairs(values["annotation"])
    if values["init"] is not None:
        host["Init"] = values["init"]
    add_devices(host, values)
    if values["link"] and not _is_user_network(host["NetworkMode"]):
        host["Links"] = [":".join(endpoint.read_link(text)) for text in values["link"]]
    return host  # type: ignore[return-value]


def add_devices(host: dict[str, Any], values: Values) -> None:
    """Put what --device and --gpus ask for into a HostConfig."""
    requests = [limits.read_gpus(text) for text in values["gpus"]]
    names = [text for text in values["device"] if limits.is_cdi_name(text)]
    if names:
        requests.append({"Driver": "cdi", "DeviceIDs": names})
    if requests:
        host["DeviceRequests"] = requests
    devices = [limits.read_device(text) for text in values["device"] if text not in names]
    if devices:
        host["Devices"] = devices


def _add_streams(body: CreateBody, values: Values) -> None:
    """Which streams the command is connected to, as docker's `run` works it out."""
    attach = values["attach"]
    detached = values.get("detach", False)
    if attach and detached:
        raise UsageError("conflicting options: cannot specify both --attach and --detach")
    body["Tty"] = values["tty"]
    body["OpenStdin"] = values["interactive"]
    body["AttachStdin"] = not detached and (values["interactive"] or "stdin" in attach)
    body["AttachStdout"] = not detached and (not attach or "stdout" in attach)
    body["AttachStderr"] = not detached and (not attach or "stderr" in attach)
    body["StdinOnce"] = body["OpenStdin"] and body["AttachStdin"]


def _add_ports(body: CreateBody, values: Values) -> None:
    bindings = parse_publish(values["publish"])
    exposed = [port for text in values["expose"] for port in parse_expose(text)]
    if bindings or exposed:
        body["ExposedPorts"] = {port: {} for port in (*bindings, *exposed)}
    if bindings:
        body["HostConfig"]["PortBindings"] = bindings


def _labels(texts: Iterable[str]) -> dict[str, str]:
    return _pairs(texts)


def _pairs(texts: Iterable[str]) -> dict[str, str]:
    return {name: rest for name, _, rest in (text.partition("=") for text in texts)}


def _tmpfs(texts: Iterable[str]) -> dict[str, str]:
    mounts: dict[str, str] = {}
    for text in texts:
        path, _, options = text.partition(":")
        check_target(path, "tmpfs")
        if path in mounts:
            raise UsageError(f"Duplicate mount point: {path}")
        mounts[path] = options
    return mounts


def _log_config(values: Values) -> LogConfig:
    return {"Type": values["log_driver"] or "json-file", "Config": _pairs(values["log_opt"])}


def read_restart_policy(text: str) -> RestartPolicy:
    """`no`, `always`, `unless-stopped`, `on-failure[:TIMES]`."""
    name, colon, times = text.partition(":")
    if colon and not name:
        raise UsageError("invalid restart policy format: no policy provided before colon")
    try:
        count = int(times) if times else 0
    except ValueError:
        raise UsageError(
            "invalid restart policy format: maximum retry count must be an integer"
        ) from None
    policy: RestartPolicy = {
        "Name": name or "no",  # type: ignore[typeddict-item]
        "MaximumRetryCount": count,
    }
    check_restart_policy(policy)
    return policy


def _health(values: Values) -> HealthConfig:
    times = {
        "Interval": ("--health-interval", values["health_interval"]),
        "Timeout": ("--health-timeout", values["health_timeout"]),
        "StartPeriod": ("--health-start-period", values["health_start_period"]),
        "StartInterval": ("--health-start-interval", values["health_start_interval"]),
        "Retries": ("--health-retries", values["health_retries"]),
    }
    command = values["health_cmd"]
    if values["no_healthcheck"]:
        if command or any(number for _, number in times.values()):
            raise UsageError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    health: dict[str, Any] = {"Test": ["CMD-SHELL", command]} if command else {}
    for key, (flag, number) in times.items():
        if number < 0:
            raise UsageError(f"{flag} cannot be negative")
        if number:
            health[key] = number
    return health  # type: ignore[return-value]


def _startup_health(values: Values) -> StartupHealth:
    """podman's `--health-startup-*`: a check that comes before the health check."""
    numbers = {
        "Interval": ("--health-startup-interval", values["health_startup_interval"]),
        "Timeout": ("--health-startup-timeout", values["health_startup_timeout"]),
        "Retries": ("--health-startup-retries", values["health_startup_retries"]),
        "Successes": ("--health-startup-success", values["health_startup_success"]),
    }
    command = values["health_startup_cmd"]
    startup: dict[str, Any] = {"Test": ["CMD-SHELL", command]} if command else {}
    for key, (flag, number) in numbers.items():
        if number < 0:
            raise UsageError(f"{flag} cannot be negative")
        if number and not command:
            raise UsageError(f"{flag} needs --health-startup-cmd")
        if number:
            startup[key] = number
    if command and values["no_healthcheck"]:
        raise UsageError("--no-healthcheck conflicts with --health-* options")
    return startup  # type: ignore[return-value]


# ---- networks ----


def _network_mode(values: Values) -> str:
    networks = [endpoint.read_network(text)[0] for text in values["network"]]
    for name in networks:
        if networks.count(name) > 1:
            raise UsageError(f'network "{name}" is specified multiple times')
    if len(networks) > 1 and any(_is_exclusive(name) for name in networks):
        raise UsageError(
            "conflicting options: cannot attach both user-defined and non-user-defined "
            "network-modes"
        )
    return networks[0] if networks else "default"


def _is_exclusive(mode: str) -> bool:
    return mode in ("host", "none") or mode.startswith("container:")


def _is_user_network(mode: str) -> bool:
    return mode.partition(":")[0] not in (*_MODES, "container", "ns")


def _endpoints(values: Values) -> dict[str, EndpointSettings]:
    endpoints: dict[str, EndpointSettings] = {}
    for text in values["network"]:
        name, settings = endpoint.read_network(text)
        if settings or _is_user_network(name) or len(values["network"]) > 1:
            endpoints[name] = settings
    first = _network_mode(values)
    settings = endpoints.get(first, {})
    _merge_endpoint(settings, first, values)
    if settings:
        endpoints[first] = settings
    return endpoints


def _merge_endpoint(settings: EndpointSettings, name: str, values: Values) -> None:
    """The options without a network's name are about the first network."""
    if aliases := values["network_alias"]:
        if settings.get("Aliases"):
            raise UsageError(
                "conflicting options: cannot specify both --network-alias and per-network alias"
            )
        if not _is_user_network(name):
            raise UsageError("network-scoped aliases are only supported for user-defined networks")
        settings["Aliases"] = list(aliases)
    config = settings.get("IPAMConfig", {})
    for flag, key in (("ip", "IPv4Address"), ("ip6", "IPv6Address")):
        if address := values[flag]:
            if config.get(key):
                what = "IPv4" if flag == "ip" else "IPv6"
                raise UsageError(
                    f"conflicting options: cannot specify both --{flag} and per-network "
                    f"{what} address"
                )
            config[key] = endpoint.read_ip(address)  # type: ignore[literal-required]
    if config:
        settings["IPAMConfig"] = config
    if mac := values["mac_address"]:
        if settings.get("MacAddress"):
            raise UsageError(
                "conflicting options: cannot specify both --mac-address and per-network MAC address"
            )
        settings["MacAddress"] = endpoint.read_mac(mac)
    if values["link"] and _is_user_network(name):
        settings["Links"] = [":".join(endpoint.read_link(text)) for text in values["link"]]


# ---- what docker has no word for ----

_OWN = (
    ("NoHosts", "no_hosts"),
    ("NoHostname", "no_hostname"),
    ("HostsFile", "hosts_file"),
    ("PidFile", "pidfile"),
    ("PreserveFds", "preserve_fds"),
    ("ReadonlyTmpfs", "read_only_tmpfs"),
    ("RemoveImage", "rmi"),
    ("Timeout", "timeout"),
    ("Timezone", "tz"),
    ("Umask", "umask"),
    ("UnsetEnv", "unsetenv"),
    ("UnsetEnvAll", "unsetenv_all"),
)


def _own(values: Values) -> WherryConfig:
    own: dict[str, Any] = {}
    for key, name in _OWN:
        if given := values[name]:
            own[key] = list(given) if isinstance(given, tuple) else given
    if values["cgroup_conf"]:
        own["CgroupConf"] = _pairs(values["cgroup_conf"])
    if offsets := values["clock_offset"]:
        own["ClockOffsets"] = {
            name: float(seconds) for name, seconds in _pairs(offsets.split(",")).items()
        }
    if startup := _startup_health(values):
        own["StartupHealth"] = startup
    if values["health_on_failure"] != "none":
        own["HealthOnFailure"] = values["health_on_failure"]
    if values["sdnotify"] != "ignore":
        own["SdNotify"] = values["sdnotify"]
    if values["passwd"] is not None:
        own["Passwd"] = values["passwd"]
    if personality := values["personality"].upper():
        if personality not in ("LINUX", "LINUX32"):
            raise UsageError(f"unknown personality {personality}: it is LINUX or LINUX32")
        own["Personality"] = personality
    if values["rootfs"]:
        own["Rootfs"] = values["image"]
    return own  # type: ignore[return-value]
