"""The shape of a bundle's config.json, which others write: every key of runtime-spec's Linux half.

A type is a word of `_WORDS`; a list of one shape, for arrays; or a dict of keys, where ""
stands for any name. A key with "!" has to be there. `wherry.oci.runtime_spec`
says the same to the type checker, and a test holds the two together; importing that here
would cost more than a container.
"""

from __future__ import annotations

from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WORDS: dict[str, tuple[type, str]] = {
    "string": (str, "a string"),
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "uint": (int, "a whole number that is not negative"),
}

_ID_MAPPING = {"containerID!": "uint", "hostID!": "uint", "size!": "uint"}
_HOOK = {"path!": "string", "args": ["string"], "env": ["string"], "timeout": "int"}
_THROTTLE = {"major!": "int", "minor!": "int", "rate!": "uint"}
_TIME_OFFSET = {"secs": "int", "nanosecs": "uint"}

PROCESS: dict[str, Any] = {
    "terminal": "bool",
    "consoleSize": {"height!": "uint", "width!": "uint"},
    "user": {
        "uid": "uint",
        "gid": "uint",
        "umask": "uint",
        "additionalGids": ["uint"],
        "username": "string",
    },
    "args": ["string"],
    "commandLine": "string",
    "env": ["string"],
    "cwd": "string",
    "capabilities": {
        name: ["string"]
        for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
    },
    "rlimits": [{"type!": "string", "soft!": "int", "hard!": "int"}],
    "noNewPrivileges": "bool",
    "apparmorProfile": "string",
    "selinuxLabel": "string",
    "oomScoreAdj": "int",
    "scheduler": {
        "policy!": "string",
        "nice": "int",
        "priority": "int",
        "flags": ["string"],
        "runtime": "uint",
        "deadline": "uint",
        "period": "uint",
    },
    "ioPriority": {"class!": "string", "priority": "int"},
    "execCPUAffinity": {"initial": "string", "final": "string"},
}

RESOURCES: dict[str, Any] = {
    "devices": [
        {
            "allow!": "bool",
            "type": "string",
            "major": "int",
            "minor": "int",
            "access": "string",
        }
    ],
    "memory": {
        "limit": "int",
        "reservation": "int",
        "swap": "int",
        "kernel": "int",
        "kernelTCP": "int",
        "swappiness": "uint",
        "disableOOMKiller": "bool",
        "useHierarchy": "bool",
        "checkBeforeUpdate": "bool",
    },
    "cpu": {
        "shares": "uint",
        "quota": "int",
        "burst": "uint",
        "period": "uint",
        "realtimeRuntime": "int",
        "realtimePeriod": "uint",
        "cpus": "string",
        "mems": "string",
        "idle": "int",
    },
    "pids": {"limit": "int"},
    "blockIO": {
        "weight": "uint",
        "leafWeight": "uint",
        "weightDevice": [
            {"major!": "int", "minor!": "int", "weight": "uint", "leafWeight": "uint"}
        ],
        "throttleReadBpsDevice": [_THROTTLE],
        "throttleWriteBpsDevice": [_THROTTLE],
        "throttleReadIOPSDevice": [_THROTTLE],
        "throttleWriteIOPSDevice": [_THROTTLE],
    },
    "hugepageLimits": [{"pageSize!": "string", "limit!": "uint"}],
    "network": {"classID": "uint", "priorities": [{"name!": "string", "priority!": "uint"}]},
    "rdma": {"": {"hcaHandles": "uint", "hcaObjects": "uint"}},
    "unified": {"": "string"},
}

_SECCOMP = {
    "defaultAction!": "string",
    "defaultErrnoRet": "uint",
    "architectures": ["string"],
    "flags": ["string"],
    "listenerPath": "string",
    "listenerMetadata": "string",
    "syscalls": [
        {
            "names!": ["string"],
            "action!": "string",
            "errnoRet": "uint",
            "args": [{"index!": "uint", "value!": "uint", "valueTwo": "uint", "op!": "string"}],
        }
    ],
}

_LINUX = {
    "namespaces": [{"type!": "string", "path": "string"}],
    "uidMappings": [_ID_MAPPING],
    "gidMappings": [_ID_MAPPING],
    "timeOffsets": {"monotonic": _TIME_OFFSET, "boottime": _TIME_OFFSET},
    "devices": [
        {
            "type!": "string",
            "path!": "string",
            "major": "int",
            "minor": "int",
            "fileMode": "uint",
            "uid": "uint",
            "gid": "uint",
        }
    ],
    "netDevices": {"": {"name": "string"}},
    "cgroupsPath": "string",
    "resources": RESOURCES,
    "intelRdt": {
        "closID": "string",
        "l3CacheSchema": "string",
        "memBwSchema": "string",
        "schemata": ["string"],
        "enableMonitoring": "bool",
    },
    "memoryPolicy": {"mode!": "string", "nodes": "string", "flags": ["string"]},
    "sysctl": {"": "string"},
    "seccomp": _SECCOMP,
    "rootfsPropagation": "string",
    "maskedPaths": ["string"],
    "readonlyPaths": ["string"],
    "mountLabel": "string",
    "personality": {"domain!": "string", "flags": ["string"]},
}

SPEC: dict[str, Any] = {
    "ociVersion!": "string",
    "root": {"path!": "string", "readonly": "bool"},
    "mounts": [
        {
            "destination!": "string",
            "type": "string",
            "source": "string",
            "options": ["string"],
            "uidMappings": [_ID_MAPPING],
            "gidMappings": [_ID_MAPPING],
        }
    ],
    "process": PROCESS,
    "hostname": "string",
    "domainname": "string",
    "hooks": {
        kind: [_HOOK]
        for kind in (
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart",
            "poststop",
        )
    },
    "annotations": {"": "string"},
    "linux": _LINUX,
}  # fmt: skip


def check_shape(found: Any, shape: Any, where: str, path: str = "") -> None:
    """Raise UsageError where `found`, from file `where`, does not have `shape`.

    Keys that the specification does not know mean nothing. A null is as good as no key.
    """
    if isinstance(shape, str):
        kind, words = _WORDS[shape]
        # Python's booleans are numbers, JSON's are not.
        is_right = isinstance(found, kind) and isinstance(found, bool) == (kind is bool)
        if not is_right or (shape == "uint" and found < 0):
            raise _wrong(where, path, words)
    elif isinstance(shape, list):
        if not isinstance(found, list):
            raise _wrong(where, path, "a list")
        for number, item in enumerate(found):
            check_shape(item, shape[0], where, f"{path}[{number}]")
    elif not isinstance(found, dict):
        raise _wrong(where, path, "an object")
    else:
        _check_keys(found, shape, where, f"{path}." if path else "")


def _check_keys(found: dict[str, Any], shape: dict[str, Any], where: str, prefix: str) -> None:
    if "" in shape:
        for key, item in found.items():
            check_shape(item, shape[""], where, prefix + key)
        return
    for key, inner in shape.items():
        name = key.rstrip("!")
        item = found.get(name)
        if item is not None:
            check_shape(item, inner, where, prefix + name)
        elif name != key:
            raise UsageError(f"{where}: {prefix}{name} is missing")
        else:
            found.pop(name, None)


def _wrong(where: str, path: str, words: str) -> UsageError:
    return UsageError(f"{where}: {path + ' is not' if path else 'it is not'} {words}")
