"""Control groups, version 2: Documentation/admin-guide/cgroup-v2.rst.

A container has one group of its own. On a host whose hierarchy is version 1 or hybrid
the group lives in the version 2 tree beside it, which has no controllers there: it can
still be frozen, killed and listed, and limits are refused rather than ignored.
"""

from __future__ import annotations

import errno
import os
import posixpath

from wherry.errors import Conflict, KernelError, Unsupported, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.oci.runtime_spec import LinuxMemory, LinuxResources


def mount_point() -> str | None:
    """Where the version 2 hierarchy is mounted."""
    for candidate in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if os.path.exists(f"{candidate}/cgroup.procs"):
            return candidate
    return None


def own_path() -> str:
    """This process's group in the version 2 hierarchy, as in /proc/self/cgroup."""
    try:
        with open("/proc/self/cgroup") as lines:
            for line in lines:
                if line.startswith("0::"):
                    return line[3:].rstrip("\n")
    except OSError:
        pass
    return "/"


def place_for(container_id: str, parent: str = "") -> str | None:
    """The path (below the mount point) of a new container's group; None where we may make none.

    Root's containers live below `parent` (/wherry); another user's below the group that
    the service manager delegated to the session.
    """
    base = mount_point()
    if base is None:
        return None
    if os.geteuid() == 0:
        return f"/{parent.strip('/') or 'wherry'}/{container_id}"
    path = own_path()
    while path != "/":
        directory = base + path
        # Delegated: the directory is ours, not only a file in it (cgroup-v2.rst, "Delegation").
        if os.access(f"{directory}/cgroup.procs", os.W_OK) and os.access(directory, os.W_OK):
            return f"{path}/{parent.strip('/') or 'wherry'}/{container_id}"
        path = os.path.dirname(path)
    return None


def group_path(wanted: str, default: str, *, systemd: bool) -> str | None:
    """Where `linux.cgroupsPath` puts a container: below the mount point; None for nowhere.

    `default` is the name where the spec has none. `systemd`: it reads "slice:prefix:name".
    The group then has the place that the unit prefix-name.scope would have.
    """
    if not wanted:
        return place_for(default)
    if systemd:
        parts = wanted.split(":")
        if len(parts) != 3:
            raise UsageError(f"cgroupsPath {wanted!r} is not of the form slice:prefix:name")
        slice_name, prefix, name = parts
        scope = name if name.endswith(".slice") else f"{prefix}-{name}.scope"
        return posixpath.join("/", *_slices(slice_name or "system.slice"), scope)
    path = posixpath.normpath(posixpath.join("/", wanted))
    if wanted.startswith("/"):
        return path if mount_point() and (os.geteuid() == 0 or _may_make(path)) else None
    return place_for(path.lstrip("/"))


def _slices(name: str) -> list[str]:
    """systemd.slice(5): a-b.slice is in a.slice; -.slice is the root."""
    if name == "-.slice":
        return []
    parts = name.removesuffix(".slice").split("-")
    return ["-".join(parts[: count + 1]) + ".slice" for count in range(len(parts))]


def _may_make(path: str) -> bool:
    """Whether this user may make the group, and what is missing above it."""
    directory = (mount_point() or "") + path
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    return os.access(directory, os.W_OK) and os.access(f"{directory}/cgroup.procs", os.W_OK)


def available_controllers() -> set[str]:
    """The controllers that the version 2 hierarchy has."""
    return set(_read(f"{mount_point()}/cgroup.controllers").split())


def controllers_for(path: str | None) -> set[str]:
    """The controllers that a group that is to be made at `path` can have."""
    if path is None:
        return set()
    directory = f"{mount_point()}"
    if os.geteuid() != 0:
        # What was delegated is the part of the path that is there.
        directory += path
        while not os.path.isdir(directory):
            directory = os.path.dirname(directory)
    return set(_read(f"{directory}/cgroup.controllers").split())


class Cgroup:
    """A container's control group."""

    def __init__(self, path: str) -> None:
        """`path` is below the mount point, as in `linux.cgroupsPath`."""
        self.path = path
        self.directory = (mount_point() or "/sys/fs/cgroup") + path

    def require_empty(self) -> None:
        """Raise Conflict where processes are in the group: they would be killed with ours."""
        # The top of the tree has no events.
        if self.event("populated") == "1" or _read(f"{self.directory}/cgroup.procs"):
            raise Conflict(
                f"control group {self.path} is in use: it has processes",
                hint="another container has the same id, or linux.cgroupsPath names the same group",
            )
        if self.is_frozen():
            raise Conflict(f"control group {self.path} is frozen")

    def make(self) -> None:
        """Make the group and what is missing above it."""
        try:
            os.makedirs(self.directory, 0o755, exist_ok=True)
        except OSError as error:
            raise KernelError(
                f"cannot make control group {self.path}: {error.strerror}", error.errno or 0
            ) from error

    def add(self, pid: int) -> None:
        """Move process `pid` into the group."""
        self._write("cgroup.procs", str(pid))

    def fork(self) -> int:
        """os.fork, the child in this group."""
        # Here, since it brings ctypes, which a monitor that only freezes has no use for.
        from wherry_linux.syscalls import fork_into_cgroup

        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return fork_into_cgroup(directory)
        except KernelError:
            # A kernel before 5.7, or a filter around us: the slow way.
            child = os.fork()
            if child == 0:
                self.add(os.getpid())
            return child
        finally:
            os.close(directory)

    def limit(self, resources: LinuxResources) -> None:
        """Apply `linux.resources`. Raises Unsupported for what this host cannot enforce."""
        from wherry_linux.limits import controllers_of, writes

        self._enable(controllers_of(resources))
        self._check_usage(resources.get("memory") or {})
        for name, value in writes(resources, self._has_file):
            self._write(name, value)

    def _has_file(self, name: str) -> bool:
        return os.path.exists(f"{self.directory}/{name}")

    def _check_usage(self, memory: LinuxMemory) -> None:
        """`checkBeforeUpdate`: the kernel would kill to get below a limit."""
        limit, used = memory.get("limit") or 0, _read(f"{self.directory}/memory.current").strip()
        if memory.get("checkBeforeUpdate") and 0 < limit < int(used or 0):
            raise Conflict(f"cannot limit memory to {limit} bytes: {used} are in use")

    def _enable(self, controllers: set[str]) -> None:
        """Turn on controllers, from the top down."""
        if not controllers:
            return
        top = mount_point() or "/sys/fs/cgroup"
        directory = top
        for part in self.path.strip("/").split("/"):
            present = set(_read(f"{directory}/cgroup.subtree_control").split())
            missing = controllers - present
            offered = set(_read(f"{directory}/cgroup.controllers").split())
            if missing - offered:
                names = ", ".join(sorted(missing - offered))
                raise Unsupported(
                    f"cannot limit resources: the {names} controller is not available"
                    f" in control group {directory}",
                    hint="this host mounts it as cgroup v1, or has not delegated it to this user;"
                    " `wherry doctor` tells which",
                )
            if missing:
                _write(
                    f"{directory}/cgroup.subtree_control",
                    " ".join(f"+{name}" for name in sorted(missing)),
                )
            directory = f"{directory}/{part}"

    def processes(self) -> list[int]:
        """The pids in the group and below it."""
        found: list[int] = []
        for directory, _, _ in os.walk(self.directory):
            found += map(int, _read(f"{directory}/cgroup.procs").split())
        return found

    def freeze(self, *, frozen: bool) -> None:
        """Stop every process in the group, or let it go on; returns when it has happened."""
        self._write("cgroup.freeze", "1" if frozen else "0")
        self._wait_for_event("frozen", "1" if frozen else "0")

    def is_frozen(self) -> bool:
        return _read(f"{self.directory}/cgroup.freeze").strip() == "1"

    def kill(self) -> None:
        """Kill every process in the group (cgroup.kill, Linux 5.14)."""
        try:
            self._write("cgroup.kill", "1")
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
            for pid in self.processes():
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    pass

    def remove(self) -> None:
        """Remove the group and those that the container made in it; it has to be empty."""
        for directory, _, _ in os.walk(self.directory, topdown=False):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise KernelError(
                        f"cannot remove control group {self.path}: {error.strerror}",
                        error.errno or 0,
                    ) from error
                self._wait_for_event("populated", "0")
                os.rmdir(directory)

    def event(self, key: str) -> str:
        """A value of cgroup.events."""
        for line in _read(f"{self.directory}/cgroup.events").splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return value
        return ""

    def _wait_for_event(self, key: str, value: str, seconds: float = 5) -> None:
        import select

        try:
            descriptor = os.open(f"{self.directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLPRI)
            while self.event(key) != value:
                if not poll.poll(int(seconds * 1000)):
                    raise KernelError(f"control group {self.path} did not become {key}={value}")
        finally:
            os.close(descriptor)

    def _write(self, name: str, value: str) -> None:
        _write(f"{self.directory}/{name}", value)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, value: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KernelError(
            f"cannot write {value!r} to {path}: {error.strerror}", error.errno or 0
        ) from error
