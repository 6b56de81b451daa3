"""The shape of a container's files, as far as we rely on it (see wherry.shapes).

`wherry.container.spec` says the same of the body to the type checker, and a test holds the
two together; `typing` would cost more than a container.
"""

from __future__ import annotations

from wherry.shapes import TEXTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NUMBER = (int, float)
_BINDINGS = {"*": [{"HostIp": str, "HostPort": str}]}
_RATE = {"Path!": str, "Rate!": int}

HEALTH: dict[str, Any] = {
    "Test": [str],
    "Interval": int,
    "Timeout": int,
    "StartPeriod": int,
    "StartInterval": int,
    "Retries": int,
}

MOUNT: dict[str, Any] = {
    "Type": str,
    "Source": str,
    "Target": str,
    "ReadOnly": bool,
    "Consistency": str,
    "BindOptions": {
        "Propagation": str,
        "NonRecursive": bool,
        "CreateMountpoint": bool,
        "ReadOnlyNonRecursive": bool,
        "ReadOnlyForceRecursive": bool,
    },
    "VolumeOptions": {
        "NoCopy": bool,
        "Labels": TEXTS,
        "DriverConfig": {"Name": str, "Options": TEXTS},
        "Subpath": str,
    },
    "ImageOptions": {"Subpath": str},
    "TmpfsOptions": {"SizeBytes": int, "Mode": int, "Options": [[str]]},
    "Wherry": {"Chown": bool, "IDMap": str, "Overlay": bool, "Relabel": str, "Flags": [str]},
}

HOST: dict[str, Any] = {
    "Binds": [str],
    "ContainerIDFile": str,
    "LogConfig": {"Type": str, "Config": TEXTS},
    "NetworkMode": str,
    "PortBindings": _BINDINGS,
    "RestartPolicy": {"Name": str, "MaximumRetryCount": int},
    "AutoRemove": bool,
    "VolumeDriver": str,
    "VolumesFrom": [str],
    "ConsoleSize": [int],
    "Annotations": TEXTS,
    "CapAdd": [str],
    "CapDrop": [str],
    "CgroupnsMode": str,
    "Dns": [str],
    "DnsOptions": [str],
    "DnsSearch": [str],
    "ExtraHosts": [str],
    "GroupAdd": [str],
    "IpcMode": str,
    "Links": [str],
    "OomScoreAdj": int,
    "PidMode": str,
    "Privileged": bool,
    "PublishAllPorts": bool,
    "ReadonlyRootfs": bool,
    "SecurityOpt": [str],
    "StorageOpt": TEXTS,
    "Tmpfs": TEXTS,
    "UTSMode": str,
    "UsernsMode": str,
    "ShmSize": int,
    "Sysctls": TEXTS,
    "Runtime": str,
    "Isolation": str,
    "CpuShares": int,
    "Memory": int,
    "NanoCpus": int,
    "CgroupParent": str,
    "BlkioWeight": int,
    "BlkioWeightDevice": [{"Path!": str, "Weight!": int}],
    "BlkioDeviceReadBps": [_RATE],
    "BlkioDeviceWriteBps": [_RATE],
    "BlkioDeviceReadIOps": [_RATE],
    "BlkioDeviceWriteIOps": [_RATE],
    "CpuPeriod": int,
    "CpuQuota": int,
    "CpuRealtimePeriod": int,
    "CpuRealtimeRuntime": int,
    "CpusetCpus": str,
    "CpusetMems": str,
    "Devices": [{"PathOnHost!": str, "PathInContainer!": str, "CgroupPermissions!": str}],
    "DeviceCgroupRules": [str],
    "DeviceRequests": [
        {
            "Driver": str,
            "Count": int,
            "DeviceIDs": [str],
            "Capabilities": [[str]],
            "Options": TEXTS,
        }
    ],
    "MemoryReservation": int,
    "MemorySwap": int,
    "MemorySwappiness": int,
    "OomKillDisable": bool,
    "PidsLimit": int,
    "Ulimits": [{"Name!": str, "Soft!": int, "Hard!": int}],
    "Mounts": [MOUNT],
    "MaskedPaths": [str],
    "ReadonlyPaths": [str],
    "Init": bool,
}

OWN: dict[str, Any] = {
    "Architecture": str,
    "Build": bool,
    "Builder": {"Pid!": int, "StartTime!": int, "BootId!": str},
    "CgroupConf": TEXTS,
    "ClockOffsets": {"monotonic": _NUMBER, "boottime": _NUMBER},
    "HealthOnFailure": str,
    "NoHosts": bool,
    "NoHostname": bool,
    "Passwd": bool,
    "HostsFile": str,
    "Personality": str,
    "PidFile": str,
    "PreserveFds": int,
    "ReadonlyTmpfs": bool,
    "RemoveImage": bool,
    "Rootfs": str,
    "SdNotify": str,
    "Secrets": [{"Name!": str, "Type!": str, "Target!": str, "UID": int, "GID": int, "Mode": int}],
    "StartupHealth": {
        "Test": [str],
        "Interval": int,
        "Timeout": int,
        "Retries": int,
        "Successes": int,
    },
    "TimeMode": str,
    "Timeout": int,
    "Timezone": str,
    "Umask": str,
    "UnsetEnv": [str],
    "UnsetEnvAll": bool,
}

BODY: dict[str, Any] = {
    "Hostname": str,
    "Domainname": str,
    "User": str,
    "AttachStdin": bool,
    "AttachStdout": bool,
    "AttachStderr": bool,
    "ExposedPorts": dict,
    "Tty": bool,
    "OpenStdin": bool,
    "StdinOnce": bool,
    "Env": [str],
    "Cmd": [str],
    "Healthcheck": HEALTH,
    "Image": str,
    "Volumes": dict,
    "WorkingDir": str,
    "Entrypoint": [str],
    "MacAddress": str,
    "Labels": TEXTS,
    "StopSignal": str,
    "StopTimeout": int,
    "HostConfig!": HOST,
    "NetworkingConfig": {
        "EndpointsConfig": {
            "*": {
                "IPAMConfig": {"IPv4Address": str, "IPv6Address": str, "LinkLocalIPs": [str]},
                "Links": [str],
                "Aliases": [str],
                "MacAddress": str,
                "DriverOpts": TEXTS,
                "GwPriority": int,
            }
        }
    },
    "Wherry": OWN,
}

RECORD: dict[str, Any] = {
    "Id!": str,
    "Name!": str,
    "Created!": str,
    "Image!": str,
    "ImageName": str,
    "Layers": [str],
    "Body!": BODY,
    "Mounts!": [
        {
            "Type!": str,
            "Destination!": str,
            "Name": str,
            "Source": str,
            "Driver": str,
            "Mode": str,
            "RW": bool,
            "Propagation": str,
            "Spec": MOUNT,
            "Anonymous": bool,
            "CopyUp": bool,
            "Layers": [str],
        }
    ],
}
"""container.json."""

STATE: dict[str, Any] = {
    "Status!": str,
    "Pid": int,
    "StartTime": int,
    "BootId": str,
    "MonitorPid": int,
    "MonitorStart": int,
    "ExitCode": int,
    "Error": str,
    "OOMKilled": bool,
    "StartedAt": str,
    "FinishedAt": str,
    "RestartCount": int,
    "ManuallyStopped": bool,
    "Kept": bool,
    "Health": {
        "Status": str,
        "FailingStreak": int,
        "Log": [{"Start": str, "End": str, "ExitCode": int, "Output": str}],
    },
    "Network": {"Ports": _BINDINGS},
}
"""state.json."""

_MAPS: dict[str, Any] = {
    "uid!": [{"containerID!": int, "hostID!": int, "size!": int}],
    "gid!": [{"containerID!": int, "hostID!": int, "size!": int}],
}
IDS: dict[str, Any] = {**_MAPS, "leased": bool, "usual": _MAPS}
"""ids.json."""
