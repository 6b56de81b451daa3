"""The config.json that `wherry oci spec` writes: a shell with docker's defaults."""

from __future__ import annotations

import os

from wherry.container.bundle import MASKED_PATHS, READONLY_PATHS
from wherry.oci import OCI_VERSION
from wherry_linux.idmap import rootless_maps
from wherry_linux.namespaces import is_supported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.oci.runtime_spec import LinuxNamespace, Mount, Spec

_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_NOTHING = ["nosuid", "noexec", "nodev"]


def default_spec(*, rootless: bool) -> Spec:
    """A bundle's config.json for a root file system in `rootfs`."""
    spec: Spec = {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": list(_CAPABILITIES),
                "effective": list(_CAPABILITIES),
                "permitted": list(_CAPABILITIES),
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "wherry",
        "mounts": _mounts(rootless=rootless),
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": _namespaces(rootless=rootless),
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
        },
    }
    if rootless:
        uid_maps, gid_maps = rootless_maps(os.geteuid(), os.getegid())
        spec["linux"]["uidMappings"] = uid_maps
        spec["linux"]["gidMappings"] = gid_maps
        del spec["linux"]["resources"]
    return spec


def _namespaces(*, rootless: bool) -> list[LinuxNamespace]:
    namespaces: list[LinuxNamespace] = [
        {"type": "pid"},
        {"type": "network"},
        {"type": "ipc"},
        {"type": "uts"},
        {"type": "mount"},
    ]
    if is_supported("cgroup"):
        namespaces.append({"type": "cgroup"})
    if rootless:
        namespaces.append({"type": "user"})
    return namespaces


def _mounts(*, rootless: bool) -> list[Mount]:
    devpts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if not rootless:
        devpts.append("gid=5")
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": devpts},
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": [*_NOTHING, "mode=1777", "size=65536k"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": _NOTHING},
        {
            "destination": "/sys",
            "type": "sysfs",
            "source": "sysfs",
            "options": [*_NOTHING, "ro"],
        },
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": [*_NOTHING, "relatime", "ro"],
        },
    ]
