"""runtime-spec's features document: what this runtime can do, on whichever host."""

from __future__ import annotations

from wherry import __version__
from wherry.container.capabilities import NAMES
from wherry.oci import (
    ARCHITECTURE_ANNOTATION,
    GROUPS_ANNOTATION,
    INIT_ANNOTATION,
    KEEP_GROUPS_ANNOTATION,
    OCI_VERSION,
    PASSWD_ANNOTATION,
    USER_ANNOTATION,
)
from wherry_linux import memory_policy
from wherry_linux.mounts import OPTIONS
from wherry_linux.namespaces import KINDS
from wherry_linux.seccomp.install import FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOOKS = (
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
)  # fmt: skip


def document() -> dict[str, Any]:
    """The document. It says nothing of this host: the specification wants it so."""
    from wherry_linux.seccomp.compiler import ACTIONS, ARCHES, OPERATORS

    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": list(HOOKS),
        "mountOptions": list(OPTIONS),
        "linux": {
            "namespaces": sorted(KINDS),
            "capabilities": list(NAMES),
            "cgroup": {
                "v1": False,
                "v2": True,
                "systemd": True,
                "systemdUser": True,
                "rdma": True,
            },
            "seccomp": {
                "enabled": True,
                "actions": sorted(ACTIONS),
                "operators": sorted(OPERATORS),
                "archs": sorted(ARCHES),
                "knownFlags": sorted(FLAGS),
                "supportedFlags": sorted(FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
            "memoryPolicy": {
                "modes": sorted(memory_policy.MODES),
                "flags": sorted(memory_policy.FLAGS),
            },
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {"org.wherry.version": __version__},
        "potentiallyUnsafeConfigAnnotations": [
            USER_ANNOTATION,
            GROUPS_ANNOTATION,
            INIT_ANNOTATION,
            ARCHITECTURE_ANNOTATION,
            PASSWD_ANNOTATION,
            KEEP_GROUPS_ANNOTATION,
        ],
    }
