"""Control groups, version 2: Documentation/admin-guide/cgroup-v2.rst.

A container has one group of its own. On a host whose hierarchy is version 1 or hybrid
the group lives in the version 2 tree beside it, which has no controllers there: it can
still be frozen, killed and listed, and limits are refused rather than ignored.
"""

from __future__ import annotations

import errno
import os

from wherry.errors import Conflict, KernelError, Unsupported, WherryError
from wherry.forked import start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.oci.runtime_spec import LinuxMemory, LinuxResources

# What counts as well as limits: `stats` shows it of containers without limits, too.
_COUNTING = frozenset(("cpu", "io", "memory", "pids"))


def mount_point() -> str | None:
    """Where the version 2 hierarchy is mounted."""
    for candidate in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if os.path.exists(f"{candidate}/cgroup.procs"):
            return candidate
    return None


def own_path(pid: int | str = "self") -> str:
    """The group of this process, or of another, in the version 2 hierarchy."""
    try:
        with open(f"/proc/{pid}/cgroup") as lines:
            for line in lines:
                if line.startswith("0::"):
                    return line[3:].rstrip("\n")
    except OSError:
        pass
    return "/"


def available_controllers() -> set[str]:
    """The controllers that the version 2 hierarchy has."""
    return set(read(f"{mount_point()}/cgroup.controllers").split())


def controllers_for(path: str | None) -> set[str]:
    """The controllers that a group that is to be made at `path` can have."""
    if path is None:
        return set()
    return set(read(f"{_existing(path)}/cgroup.controllers").split())


def _existing(path: str) -> str:
    """The directory that the group at `path` will be in; root can give it all that there is."""
    directory = f"{mount_point()}"
    if os.geteuid() != 0:
        # What was delegated is a part of the path that is there: its top has them all.
        directory += path
        while not os.path.isdir(directory) or os.access(
            f"{os.path.dirname(directory)}/cgroup.procs", os.W_OK
        ):
            directory = os.path.dirname(directory)
    return directory


def processors_for(path: str | None) -> tuple[str, str]:
    """The CPUs and the memory nodes that a group at `path` can have, as the kernel lists them."""
    directory = "" if path is None else _existing(path)
    return (
        read(f"{directory}/cpuset.cpus.effective").strip()
        or read("/sys/devices/system/cpu/online").strip(),
        read(f"{directory}/cpuset.mems.effective").strip()
        or read("/sys/devices/system/node/online").strip()
        or "0",
    )


def version() -> str:
    """The version of the hierarchy whose controllers this host uses."""
    return "2" if mount_point() == "/sys/fs/cgroup" else "1"


def missing_files(path: str | None, names: set[str]) -> set[str]:
    """Those of `names` that a group at `path` will not have: parts of the kernel left out."""
    if path is None:
        return names
    # The group above shows it, where it has the controller; the top of the tree never does.
    above = Cgroup(os.path.dirname(path))
    if os.geteuid() == 0 and not above.path.endswith(".scope"):
        above.make()
        above.count()
    while not os.path.isdir(above.directory):
        above = Cgroup(os.path.dirname(above.path))
    return {
        name
        for name in names
        if above.has_file(f"{name.partition('.')[0]}.max")
        and not above.has_file(name)
        and not above.has_file(name.replace("io.", "io.bfq."))
    }


class Cgroup:
    """A container's control group."""

    def __init__(self, path: str) -> None:
        """`path` is below the mount point, as in `linux.cgroupsPath`."""
        self.path = path
        self.directory = (mount_point() or "/sys/fs/cgroup") + path

    def require_empty(self) -> None:
        """Raise Conflict where processes are in the group: they would be killed with ours."""
        # The top of the tree has no events.
        if self.event("populated") == "1" or read(f"{self.directory}/cgroup.procs"):
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

    def start(self, function: Callable[[], object]) -> int:
        """A child in this group, as `wherry.forked.start` has it.

        Raises KernelError with EBUSY where the group is divided.
        """
        try:
            return start(function, self._fork)
        except KernelError as error:
            if error.errno == errno.EBUSY:
                raise
            if error.errno == errno.EACCES and self._leave_session():
                return start(function, self._fork)
            # A kernel before 5.7, or a filter around us: the slow way.
            return self._start_and_move(function)

    def _fork(self) -> int:
        # Here, since it brings ctypes, which a monitor that only freezes has no use for.
        from wherry_linux.syscalls import fork_into_cgroup

        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return fork_into_cgroup(directory)
        finally:
            os.close(directory)

    def _start_and_move(self, function: Callable[[], object]) -> int:
        moved, tell = os.pipe()

        def wait_and_call() -> None:
            os.close(tell)
            if os.read(moved, 1):
                os.close(moved)
                function()

        child = start(wait_and_call)
        os.close(moved)
        try:
            self.add(child)
            os.write(tell, b"1")
        except BaseException:
            os.close(tell)
            os.waitpid(child, 0)
            raise
        os.close(tell)
        return child

    def _leave_session(self) -> bool:
        """Move this process below its user's systemd, from where it may go to this group."""
        from wherry_linux import scopes

        manager = scopes.manager_group(mount_point() or "")
        if not manager or not self.path.startswith(f"{manager}/"):
            return False
        scopes.enter(f"{manager}/app.slice/wherry-{os.getpid()}.scope")
        return True

    def limit(self, resources: LinuxResources) -> None:
        """Apply `linux.resources`. Raises Unsupported for what this host cannot enforce."""
        from wherry_linux.limits import controllers_of, writes

        self._enable(controllers_of(resources))
        self._check_usage(resources.get("memory") or {})
        for name, value in writes(resources, self.has_file):
            try:
                self._write(name, value)
            except KernelError as error:
                if name != "io.weight" or error.errno != errno.EOPNOTSUPP:
                    raise
                device = value.partition(" ")[0]
                raise Unsupported(
                    f"cannot weigh the traffic of device {device}: io.cost is off for it",
                    hint=f"echo '{device} enable=1' > /sys/fs/cgroup/io.cost.qos turns it on",
                ) from error

    def count(self) -> None:
        """Have the kernel count what the group uses, as far as it can."""
        try:
            self._enable(set(_COUNTING & controllers_for(self.path)))
        except WherryError:
            pass  # what cannot be counted is not shown

    def has_file(self, name: str) -> bool:
        return os.path.exists(f"{self.directory}/{name}")

    def _check_usage(self, memory: LinuxMemory) -> None:
        """`checkBeforeUpdate`: the kernel would kill to get below a limit."""
        limit, used = memory.get("limit") or 0, read(f"{self.directory}/memory.current").strip()
        if memory.get("checkBeforeUpdate") and 0 < limit < int(used or 0):
            raise Conflict(f"cannot limit memory to {limit} bytes: {used} are in use")

    def _enable(self, controllers: set[str]) -> None:
        """Turn on controllers, from the top down."""
        if not controllers:
            return
        top = mount_point() or "/sys/fs/cgroup"
        directory = top
        for part in self.path.strip("/").split("/"):
            present = set(read(f"{directory}/cgroup.subtree_control").split())
            missing = controllers - present
            offered = set(read(f"{directory}/cgroup.controllers").split())
            if missing - offered:
                names = ", ".join(sorted(missing - offered))
                raise Unsupported(
                    f"cannot limit resources: the {names} controller is not available"
                    f" in control group {directory}",
                    hint="this host mounts it as cgroup v1, or has not delegated it to this user;"
                    " `wherry doctor` tells which",
                )
            if missing:
                _turn_on(directory, missing)
            directory = f"{directory}/{part}"

    def processes(self) -> list[int]:
        """The pids in the group and below it."""
        found: list[int] = []
        for directory, _, _ in os.walk(self.directory):
            found += map(int, read(f"{directory}/cgroup.procs").split())
        return found

    def freeze(self, *, frozen: bool) -> None:
        """Stop every process in the group, or let it go on; returns when it has happened."""
        self._write("cgroup.freeze", "1" if frozen else "0")
        self._wait_for_event("frozen", "1" if frozen else "0")

    def is_frozen(self) -> bool:
        return read(f"{self.directory}/cgroup.freeze").strip() == "1"

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
        for line in read(f"{self.directory}/cgroup.events").splitlines():
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


def _turn_on(directory: str, controllers: set[str]) -> None:
    names = sorted(controllers)
    try:
        _write(f"{directory}/cgroup.subtree_control", " ".join(f"+{name}" for name in names))
    except KernelError as error:
        if error.errno != errno.EBUSY:
            raise
        raise Unsupported(
            f"cannot limit resources: control group {directory} has processes of its own, so that"
            f" it hands down no {', '.join(names)} controller",
            hint="a group of this user's without processes is needed: `systemd-run --user --scope"
            " wherry …` runs in one",
        ) from error


def read(path: str) -> str:
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
