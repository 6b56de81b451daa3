"""A container as docker's API tells of it: the entry of a list, and everything about it.

Pure, so that it is the same for `ps`, `inspect` and the API, and testable without a kernel.
"""

from __future__ import annotations

from wherry.container.namespaces import mode
from wherry.container.networks import networks_of
from wherry.human import SECOND, human_duration
from wherry.times import ago, parse_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.container.store import Container

RUNNING = ("running", "paused", "restarting")

_SHOWN_MOUNT = ("Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation")

# What docker's inspect shows of a HostConfig where nothing was said.
_HOST_DEFAULTS: dict[str, Any] = {
    "Binds": None,
    "ContainerIDFile": "",
    "LogConfig": {"Type": "json-file", "Config": {}},
    "NetworkMode": "default",
    "PortBindings": {},
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "AutoRemove": False,
    "VolumeDriver": "",
    "VolumesFrom": None,
    "ConsoleSize": [0, 0],
    "CapAdd": None,
    "CapDrop": None,
    "CgroupnsMode": "private",
    "Dns": [],
    "DnsOptions": [],
    "DnsSearch": [],
    "ExtraHosts": None,
    "GroupAdd": None,
    "IpcMode": "private",
    "Cgroup": "",
    "Links": None,
    "OomScoreAdj": 0,
    "PidMode": "",
    "Privileged": False,
    "PublishAllPorts": False,
    "ReadonlyRootfs": False,
    "SecurityOpt": None,
    "UTSMode": "",
    "UsernsMode": "",
    "ShmSize": 64 << 20,
    "Runtime": "wherry",
    "Isolation": "",
    "CpuShares": 0,
    "Memory": 0,
    "NanoCpus": 0,
    "CgroupParent": "",
    "BlkioWeight": 0,
    "BlkioWeightDevice": [],
    "BlkioDeviceReadBps": [],
    "BlkioDeviceWriteBps": [],
    "BlkioDeviceReadIOps": [],
    "BlkioDeviceWriteIOps": [],
    "CpuPeriod": 0,
    "CpuQuota": 0,
    "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0,
    "CpusetCpus": "",
    "CpusetMems": "",
    "Devices": [],
    "DeviceCgroupRules": None,
    "DeviceRequests": None,
    "MemoryReservation": 0,
    "MemorySwap": 0,
    "MemorySwappiness": None,
    "OomKillDisable": None,
    "PidsLimit": None,
    "Ulimits": [],
    "CpuCount": 0,
    "CpuPercent": 0,
    "IOMaximumIOps": 0,
    "IOMaximumBandwidth": 0,
}

_CONFIG_DEFAULTS: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": [],
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": {},
}
_CONFIG_EXTRAS = ("ExposedPorts", "Healthcheck", "StopSignal", "StopTimeout", "MacAddress")


def inspect(container: Container) -> dict[str, Any]:
    """What docker's `inspect` shows of a container, but its sizes."""
    record, body, state = container.record, container.body, container.state
    host = body["HostConfig"]
    command = _command(body)
    return {
        "Id": container.id,
        "Created": record["Created"],
        "Path": command[0] if command else "",
        "Args": command[1:],
        "State": _state(state),
        "Image": record["Image"],
        "ResolvConfPath": container.path("resolv.conf"),
        "HostnamePath": container.path("hostname"),
        "HostsPath": container.path("hosts"),
        "LogPath": _log_path(container),
        "Name": f"/{container.name}",
        "RestartCount": state.get("RestartCount") or 0,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": state.get("ExecIDs") or None,
        "HostConfig": {**_HOST_DEFAULTS, **host},
        "GraphDriver": _graph_driver(container),
        "Mounts": _mounts(container),
        "Config": _config(container),
        "NetworkSettings": network_settings(container),
        **({"Wherry": body["Wherry"]} if body.get("Wherry") else {}),
    }


def summary(container: Container, now: int | None = None) -> dict[str, Any]:
    """The entry of a container in /containers/json."""
    record, body, state = container.record, container.body, container.state
    networks = network_settings(container)
    return {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": record["ImageName"] or record["Image"],
        "ImageID": record["Image"],
        "Command": _command_line(_command(body)),
        "Created": parse_time(record["Created"]) // SECOND,
        "Ports": _port_list(networks["Ports"]),
        "Labels": body.get("Labels") or {},
        "State": state["Status"],
        "Status": status(state, now),
        "HostConfig": {"NetworkMode": body["HostConfig"].get("NetworkMode") or "default"},
        "NetworkSettings": {"Networks": networks["Networks"]},
        "Mounts": _mounts(container),
    }


def status(state: dict[str, Any], now: int | None = None) -> str:
    """`Up 3 minutes (healthy)`, `Exited (137) 2 hours ago`, …"""
    kind = state["Status"]
    if kind in ("running", "paused"):
        started = parse_time(state["StartedAt"])
        up = f"Up {_since(started, now)}"
        if kind == "paused":
            return f"{up} (Paused)"
        health = (state.get("Health") or {}).get("Status") or "none"
        if health in ("", "none"):
            return up
        return f"{up} ({'health: starting' if health == 'starting' else health})"
    ended = f"({state['ExitCode']}) {ago(parse_time(state['FinishedAt']), now)}"
    if kind == "restarting":
        return f"Restarting {ended}"
    if kind == "removing":
        return "Removal In Progress"
    if kind == "dead":
        return "Dead"
    return "Created" if kind == "created" else f"Exited {ended}"


def _since(moment: int, now: int | None) -> str:
    if now is None:
        import time

        now = time.time_ns()
    return human_duration(now - moment)


def _state(state: dict[str, Any]) -> dict[str, Any]:
    kind = state["Status"]
    shown = {
        "Status": kind,
        "Running": kind in RUNNING,
        "Paused": kind == "paused",
        "Restarting": kind == "restarting",
        "OOMKilled": bool(state.get("OOMKilled")),
        "Dead": kind == "dead",
        "Pid": state.get("Pid") or 0,
        "ExitCode": state.get("ExitCode") or 0,
        "Error": state.get("Error") or "",
        "StartedAt": state["StartedAt"],
        "FinishedAt": state["FinishedAt"],
    }
    if state.get("Health"):
        shown["Health"] = state["Health"]
    return shown


def _config(container: Container) -> dict[str, Any]:
    body = container.body
    config = {key: body.get(key, default) for key, default in _CONFIG_DEFAULTS.items()}
    config["Image"] = container.record["ImageName"]
    if not config["Hostname"] and body["HostConfig"].get("UTSMode") != "host":
        config["Hostname"] = container.id[:12]
    config.update((key, body[key]) for key in _CONFIG_EXTRAS if body.get(key) is not None)
    return config


def _command(body: dict[str, Any]) -> list[str]:
    return [*(body.get("Entrypoint") or ()), *(body.get("Cmd") or ())]


def _command_line(command: list[str]) -> str:
    """The command as lists show it: docker quotes the arguments that have spaces."""
    arguments = [f"'{each}'" if " " in each else each for each in command[1:]]
    return " ".join([*command[:1], *arguments])


def _log_path(container: Container) -> str:
    from wherry.container.log_drivers import driver_of, is_kept

    kept = is_kept(*driver_of(container.body["HostConfig"]))
    return container.path("container.log") if kept else ""


def _graph_driver(container: Container) -> dict[str, Any]:
    from wherry.image.layers import layer_path

    lower = ":".join(layer_path(each) for each in reversed(container.record.get("Layers") or ()))
    return {
        "Name": "overlay2",
        "Data": {
            "LowerDir": lower,
            "MergedDir": container.path("root"),
            "UpperDir": container.path("upper"),
            "WorkDir": container.path("work"),
        },
    }


def _mounts(container: Container) -> list[dict[str, Any]]:
    points = container.record.get("Mounts") or ()
    return [{key: point[key] for key in _SHOWN_MOUNT if key in point} for point in points]


# ---- networks ----


def network_settings(container: Container) -> dict[str, Any]:
    """What the network gave to a running container, and what was asked of it otherwise."""
    body, state = container.body, container.state
    is_running = state["Status"] in RUNNING
    given: dict[str, Any] = (state.get("Network") or {}) if is_running else {}
    networks = given.get("Networks") or {
        name: {**_ENDPOINT, **settings} for name, settings in _asked_networks(container).items()
    }
    first: dict[str, Any] = next(iter(networks.values()), _ENDPOINT)
    exposed = dict.fromkeys(body.get("ExposedPorts") or {}) if is_running else {}
    ports = {**exposed, **(given.get("Ports") or {})}
    return {
        "Bridge": "",
        "SandboxID": given.get("SandboxID") or "",
        "SandboxKey": given.get("SandboxKey") or "",
        "Ports": ports,
        "EndpointID": first.get("EndpointID") or "",
        "Gateway": first.get("Gateway") or "",
        "GlobalIPv6Address": first.get("GlobalIPv6Address") or "",
        "GlobalIPv6PrefixLen": first.get("GlobalIPv6PrefixLen") or 0,
        "IPAddress": first.get("IPAddress") or "",
        "IPPrefixLen": first.get("IPPrefixLen") or 0,
        "IPv6Gateway": first.get("IPv6Gateway") or "",
        "MacAddress": first.get("MacAddress") or "",
        "Networks": networks,
    }


def _asked_networks(container: Container) -> Mapping[str, Any]:
    network = mode(container.body, "network")
    return {network: {}} if network in ("none", "host") else networks_of(container)


_ENDPOINT: dict[str, Any] = {
    "IPAMConfig": None,
    "Links": None,
    "Aliases": None,
    "MacAddress": "",
    "DriverOpts": None,
    "GwPriority": 0,
    "NetworkID": "",
    "EndpointID": "",
    "Gateway": "",
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "DNSNames": None,
}


def _port_list(ports: dict[str, Any]) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = []
    for port, bindings in ports.items():
        number, _, kind = port.partition("/")
        inner = {"PrivatePort": int(number), "Type": kind or "tcp"}
        if not bindings:
            listed.append(inner)
        for binding in bindings or ():
            outer = {"IP": binding["HostIp"], "PublicPort": int(binding["HostPort"] or 0)}
            listed.append({**inner, **outer})
    return listed
