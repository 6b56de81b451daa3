"""Where a container's control group is, and how this process gets to where it can be made."""

from __future__ import annotations

import os
import posixpath

from wherry.errors import UsageError
from wherry_linux.cgroups import Cgroup, mount_point, own_path, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# There while systemd is process 1 (sd_booted(3)).
_SYSTEMD = "/run/systemd/system"


def place_for(container_id: str, parent: str = "", *, units: bool = True) -> str | None:
    """The path (below the mount point) of a new container's group; None where we may make none.

    Root's are in scopes where systemd runs, and below `parent` (/wherry) where not, or
    where that is a path; another user's below a group that the service manager delegated,
    or in a scope that the user's own will make. Without `units` root makes no scope.
    """
    base = mount_point()
    if base is None:
        return None
    below = posixpath.normpath(f"/{parent}").strip("/") or "wherry"
    is_root = os.geteuid() == 0
    for path in () if is_root else _delegated_to_us(base):
        return f"{path}/{below}/{container_id}"
    in_slice = parent.endswith(".slice") and "/" not in parent
    # Where root wants a group by its path, that is no unit's.
    if not is_root or (units and (in_slice or not parent) and os.path.isdir(_SYSTEMD)):
        from wherry_linux import scopes

        manager = scopes.manager_group(base)
        if manager is not None:
            place = (parent, "") if in_slice else ("", parent and below)
            return scopes.group_in(manager, place[0], _unit(container_id), place[1])
    return f"/{below}/{container_id}" if is_root else None


def group_path(wanted: str, default: str, *, systemd: bool) -> str | None:
    """Where `linux.cgroupsPath` puts a container: below the mount point; None for nowhere.

    `default` is the name where the spec has none. `systemd`: it reads "slice:prefix:name",
    which is the unit prefix-name.scope; where no systemd makes it, the group that it would have.
    """
    if not wanted:
        return place_for(default, units=systemd)
    if systemd:
        return _group_of_unit(wanted)
    path = posixpath.normpath(posixpath.join("/", wanted))
    if wanted.startswith("/"):
        return path if mount_point() and (os.geteuid() == 0 or _may_make(path)) else None
    return place_for(path.lstrip("/"), units=False)


def enter_scope(path: str) -> None:
    """Move this process to where it may make the group at `path`, if it is not there."""
    if ".scope/" not in path:
        return
    from wherry_linux import scopes

    scope = scopes.scope_of(path)
    if not scope or own_path().startswith(f"{scope}/"):
        return
    scopes.enter(scope)
    # Beside the group of the container: one with processes hands no controllers down.
    own = Cgroup(f"{scope}/monitor")
    own.make()
    own.add(os.getpid())


def _group_of_unit(wanted: str) -> str:
    from wherry_linux import scopes

    parts = wanted.split(":")
    if len(parts) != 3:
        raise UsageError(f"cgroupsPath {wanted!r} is not of the form slice:prefix:name")
    slice_name, prefix, name = parts
    if name.endswith(".slice"):
        return posixpath.join("/", *scopes.slices(slice_name or "system.slice"), name)
    unit = f"{prefix}-{name}.scope"
    manager = scopes.manager_group(mount_point() or "")
    if manager is not None:
        return scopes.group_in(manager, slice_name, unit)
    return posixpath.join("/", *scopes.slices(slice_name or "system.slice"), unit)


def _unit(container_id: str) -> str:
    """systemd.unit(5), "String Escaping for Inclusion in Unit Names"."""
    return f"wherry-{container_id.replace('+', chr(92) + 'x2b')}.scope"


def _delegated_to_us(base: str) -> Iterator[str]:
    """The groups that are this user's, the best first."""
    delegated = list(_delegated(base, own_path()))
    # Only a group without processes hands controllers down (cgroup-v2.rst, "No Internal
    # Process Constraint"): our own session has us in it.
    yield from (path for path in delegated if not _has_processes(base + path))
    yield from delegated


def _delegated(base: str, path: str) -> Iterator[str]:
    """`path` and the groups above it that are this user's, the nearest first."""
    while path != "/":
        directory = base + path
        # The directory is ours, not only a file in it (cgroup-v2.rst, "Delegation").
        if os.access(f"{directory}/cgroup.procs", os.W_OK) and os.access(directory, os.W_OK):
            yield path
        path = os.path.dirname(path)


def _has_processes(directory: str) -> bool:
    return bool(read(f"{directory}/cgroup.procs"))


def _may_make(path: str) -> bool:
    """Whether this user may make the group, and what is missing above it."""
    directory = (mount_point() or "") + path
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    return os.access(directory, os.W_OK) and os.access(f"{directory}/cgroup.procs", os.W_OK)
