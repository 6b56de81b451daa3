"""Namespaces: which to make, which to join (namespaces(7), runtime-spec `linux.namespaces`)."""

from __future__ import annotations

import fcntl
import os

from wherry.errors import KernelError, NoUserNamespace, UsageError
from wherry_linux import constants as c
from wherry_linux.idmap import open_users
from wherry_linux.syscalls import setns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.oci.runtime_spec import IDMapping, LinuxNamespace

# runtime-spec type: (clone flag, file in /proc/PID/ns)
KINDS = {
    "user": (c.CLONE_NEWUSER, "user"),
    "mount": (c.CLONE_NEWNS, "mnt"),
    "uts": (c.CLONE_NEWUTS, "uts"),
    "ipc": (c.CLONE_NEWIPC, "ipc"),
    "network": (c.CLONE_NEWNET, "net"),
    "pid": (c.CLONE_NEWPID, "pid"),
    "cgroup": (c.CLONE_NEWCGROUP, "cgroup"),
    "time": (c.CLONE_NEWTIME, "time"),
}


class Plan:
    """What a container's namespaces ask for: flags for unshare(2), descriptors for setns(2)."""

    def __init__(self, namespaces: list[LinuxNamespace]) -> None:
        self.kinds: set[str] = set()
        self.flags = 0
        self.joined: dict[str, int] = {}
        # The user namespace between ours and the one that is joined; -1 for none.
        self.outer = -1
        # Whether the processes of another container may be in what this one gets.
        self.has_company = False
        for namespace in namespaces:
            kind = namespace["type"]
            if kind not in KINDS:
                raise UsageError(f"unknown namespace type {kind!r}")
            if kind in self.kinds:
                raise UsageError(f"namespace {kind} is listed twice")
            self.kinds.add(kind)
            path = namespace.get("path")
            if path:
                self.joined[kind] = open_namespace(path)
                self.has_company = True
                if kind == "user":
                    self.outer = outer_users(self.joined[kind])
            elif is_supported(kind):
                self.flags |= KINDS[kind][0]
            elif kind == "user":
                raise NoUserNamespace("this kernel has no user namespaces")
            else:
                raise UsageError(f"this kernel has no {kind} namespaces")

    def makes(self, kind: str) -> bool:
        """Whether the container gets a new namespace of this kind."""
        return bool(self.flags & KINDS[kind][0])

    def prepare_users(self, uid_maps: list[IDMapping], gid_maps: list[IDMapping]) -> None:
        """Make the user namespace now, so that mounts can be idmapped for it."""
        if self.makes("user"):
            self.joined["user"] = open_users(uid_maps, gid_maps)
            self.flags &= ~c.CLONE_NEWUSER

    def close(self) -> None:
        """Give up the descriptors, where a fork has them."""
        for descriptor in (*self.joined.values(), self.outer):
            if descriptor >= 0:
                os.close(descriptor)

    def join(self, kind: str) -> None:
        """Enter the existing namespace of this kind, if the spec names one."""
        descriptor = self.joined.pop(kind, -1)
        if descriptor >= 0:
            setns(descriptor, KINDS[kind][0])
            os.close(descriptor)


def outer_users(users: int) -> int:
    """The user namespace that `users` was made in, owned by the caller; -1 where that is ours."""
    try:
        parent = fcntl.ioctl(users, c.NS_GET_PARENT)
    except OSError:
        return -1  # `users` is our own, or none of a user
    if os.path.samestat(os.fstat(parent), os.stat("/proc/self/ns/user")):
        os.close(parent)
        return -1
    return parent


def is_supported(kind: str) -> bool:
    """Whether this kernel has namespaces of this kind."""
    return os.path.exists(f"/proc/self/ns/{KINDS[kind][1]}")


def open_namespace(path: str) -> int:
    """A descriptor of the namespace at `path`, owned by the caller."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(
            f"cannot open namespace {path}: {error.strerror}", error.errno or 0
        ) from error


def numbers(pid: int | str = "self") -> dict[str, str]:
    """The inode number of each namespace of a process, as lsns(8) shows them."""
    found = {}
    for kind, (_, name) in KINDS.items():
        try:
            link = os.readlink(f"/proc/{pid}/ns/{name}")
        except OSError:
            continue
        found[kind] = link.partition("[")[2].rstrip("]")
    return found
