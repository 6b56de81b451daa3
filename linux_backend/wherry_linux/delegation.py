"""Who owns a container's control group: runtime-spec "Cgroup ownership"."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.oci.runtime_spec import IDMapping, Spec

# What the kernel names no files for it.
_FILES = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")


def owner_of(spec: Spec) -> int | None:
    """The host's id of the user who may divide the group further; None where nobody may.

    That takes a cgroup namespace of the container's own, and a writable mount.
    """
    linux = spec["linux"]
    namespaces = {entry["type"] for entry in linux.get("namespaces") or [] if not entry.get("path")}
    is_writable = any(
        entry.get("source") == "cgroup"
        and entry["destination"] == "/sys/fs/cgroup"
        and "ro" not in (entry.get("options") or [])
        for entry in spec.get("mounts") or []
    )
    if "cgroup" not in namespaces or not is_writable:
        return None
    uid = spec["process"]["user"].get("uid", 0)
    if "user" not in namespaces:
        return uid
    return _outside(uid, linux.get("uidMappings") or [])


def _outside(uid: int, mappings: list[IDMapping]) -> int | None:
    for mapping in mappings:
        if 0 <= uid - mapping["containerID"] < mapping["size"]:
            return mapping["hostID"] + uid - mapping["containerID"]
    return None


def delegate(directory: str, owner: int) -> None:
    """Give the group of `directory` to `owner`, and nothing that would raise its own limits."""
    try:
        with open("/sys/kernel/cgroup/delegate") as file:
            names = file.read().split()
    except OSError:
        names = list(_FILES)
    for path in (directory, *(f"{directory}/{name}" for name in names)):
        try:
            os.chown(path, owner, -1)
        except (FileNotFoundError, PermissionError):
            pass  # of a controller that is off; or not ours to give
