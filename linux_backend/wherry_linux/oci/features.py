"""runtime-spec's features document: what this runtime can do on this kernel."""

from __future__ import annotations

import os

from wherry.container.capabilities import NAMES
from wherry_linux.cgroups import mount_point
from wherry_linux.mounts import OPTIONS
from wherry_linux.namespaces import KINDS, is_supported
from wherry_linux.seccomp.install import FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOOKS = (
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
)  # fmt: skip


def document() -> dict[str, Any]:
    """The document, with facts of this host where a key asks for them."""
    from wherry_linux.seccomp.compiler import ACTIONS, ARCHES, OPERATORS

    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": list(HOOKS),
        "mountOptions": list(OPTIONS),
        "linux": {
            "namespaces": sorted(kind for kind in KINDS if is_supported(kind)),
            "capabilities": list(NAMES),
            "cgroup": {
                "v1": False,
                "v2": mount_point() is not None,
                "systemd": False,
                "systemdUser": False,
                "rdma": True,
            },
            "seccomp": {
                "enabled": os.path.exists("/proc/sys/kernel/seccomp/actions_avail"),
                "actions": sorted(ACTIONS),
                "operators": sorted(OPERATORS),
                "archs": sorted(ARCHES),
                "knownFlags": sorted(FLAGS),
                "supportedFlags": sorted(FLAGS),
            },
            "apparmor": {"enabled": os.path.isdir("/sys/kernel/security/apparmor")},
            "selinux": {"enabled": os.path.isdir("/sys/fs/selinux")},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": False},
        },
        "annotations": {},
        "potentiallyUnsafeConfigAnnotations": ["org.wherry.user", "org.wherry.groups"],
    }
