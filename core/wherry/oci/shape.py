"""The shape of a config.json that was written here, as far as we rely on it (see wherry.shapes)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_IDS = [{"containerID!": int, "hostID!": int, "size!": int}]

SPEC: dict[str, Any] = {
    "process!": {
        "terminal": bool,
        "user": {"uid": int, "gid": int, "additionalGids": [int], "umask": int},
        "args!": [str],
        "env": [str],
        "cwd!": str,
        "capabilities": {"*": [str]},
        "rlimits": [{"type!": str, "soft!": int, "hard!": int}],
    },
    "root!": {"path!": str},
    "mounts": [{"destination!": str, "type": str, "source": str, "options": [str]}],
    "linux": {
        "namespaces": [{"type!": str, "path": str}],
        "uidMappings": _IDS,
        "gidMappings": _IDS,
        "cgroupsPath": str,
        "resources": dict,
        "seccomp": dict,
    },
}
