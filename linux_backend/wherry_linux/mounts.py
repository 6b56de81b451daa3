"""Mounts below a root file system that is not ours to trust: runtime-spec `mounts`, mount(8).

The image decides what lies at a mount's destination, symbolic links included. So a
destination is always resolved by the kernel inside the new root (openat2,
RESOLVE_IN_ROOT), and mounted on through the descriptor that this gives.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat

from wherry.errors import KernelError, WherryError
from wherry.forked import start
from wherry_linux import constants as c
from wherry_linux.channel import Channel
from wherry_linux.namespaces import open_namespace
from wherry_linux.overlay import mount_overlay
from wherry_linux.syscalls import (
    fstatfs_type,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
    openat2,
    setns,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.oci.runtime_spec import Mount

# option: (flag, whether it clears)
_FLAGS = {
    "async": (c.MS_SYNCHRONOUS, True),
    "atime": (c.MS_NOATIME, True),
    "bind": (c.MS_BIND, False),
    "defaults": (0, False),
    "dev": (c.MS_NODEV, True),
    "diratime": (c.MS_NODIRATIME, True),
    "dirsync": (c.MS_DIRSYNC, False),
    "exec": (c.MS_NOEXEC, True),
    "iversion": (c.MS_I_VERSION, False),
    "lazytime": (c.MS_LAZYTIME, False),
    "loud": (c.MS_SILENT, True),
    "mand": (c.MS_MANDLOCK, False),
    "noatime": (c.MS_NOATIME, False),
    "nodev": (c.MS_NODEV, False),
    "nodiratime": (c.MS_NODIRATIME, False),
    "noexec": (c.MS_NOEXEC, False),
    "noiversion": (c.MS_I_VERSION, True),
    "nolazytime": (c.MS_LAZYTIME, True),
    "nomand": (c.MS_MANDLOCK, True),
    "norelatime": (c.MS_RELATIME, True),
    "nostrictatime": (c.MS_STRICTATIME, True),
    "nosuid": (c.MS_NOSUID, False),
    "nosymfollow": (c.MS_NOSYMFOLLOW, False),
    "rbind": (c.MS_BIND | c.MS_REC, False),
    "relatime": (c.MS_RELATIME, False),
    "remount": (c.MS_REMOUNT, False),
    "ro": (c.MS_RDONLY, False),
    "rw": (c.MS_RDONLY, True),
    "silent": (c.MS_SILENT, False),
    "strictatime": (c.MS_STRICTATIME, False),
    "suid": (c.MS_NOSUID, True),
    "symfollow": (c.MS_NOSYMFOLLOW, True),
    "sync": (c.MS_SYNCHRONOUS, False),
}

_PROPAGATION = {
    "private": c.MS_PRIVATE,
    "rprivate": c.MS_PRIVATE | c.MS_REC,
    "slave": c.MS_SLAVE,
    "rslave": c.MS_SLAVE | c.MS_REC,
    "shared": c.MS_SHARED,
    "rshared": c.MS_SHARED | c.MS_REC,
    "unbindable": c.MS_UNBINDABLE,
    "runbindable": c.MS_UNBINDABLE | c.MS_REC,
}

# option: (attributes to set, attributes to clear), for the whole tree below (mount_setattr).
_RECURSIVE = {
    "rro": (c.MOUNT_ATTR_RDONLY, 0),
    "rrw": (0, c.MOUNT_ATTR_RDONLY),
    "rnosuid": (c.MOUNT_ATTR_NOSUID, 0),
    "rsuid": (0, c.MOUNT_ATTR_NOSUID),
    "rnodev": (c.MOUNT_ATTR_NODEV, 0),
    "rdev": (0, c.MOUNT_ATTR_NODEV),
    "rnoexec": (c.MOUNT_ATTR_NOEXEC, 0),
    "rexec": (0, c.MOUNT_ATTR_NOEXEC),
    "rnodiratime": (c.MOUNT_ATTR_NODIRATIME, 0),
    "rdiratime": (0, c.MOUNT_ATTR_NODIRATIME),
    "rrelatime": (c.MOUNT_ATTR_RELATIME, c.MOUNT_ATTR__ATIME),
    "rnorelatime": (c.MOUNT_ATTR_RELATIME, c.MOUNT_ATTR__ATIME),
    "rnoatime": (c.MOUNT_ATTR_NOATIME, c.MOUNT_ATTR__ATIME),
    "ratime": (c.MOUNT_ATTR_RELATIME, c.MOUNT_ATTR__ATIME),
    "rstrictatime": (c.MOUNT_ATTR_STRICTATIME, c.MOUNT_ATTR__ATIME),
    "rnostrictatime": (c.MOUNT_ATTR_RELATIME, c.MOUNT_ATTR__ATIME),
    "rnosymfollow": (c.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "rsymfollow": (0, c.MOUNT_ATTR_NOSYMFOLLOW),
}

OPTIONS = sorted({*_FLAGS, *_PROPAGATION, *_RECURSIVE, "tmpcopyup", "idmap", "ridmap"})

# What may be changed on a bind mount of its own (mount(2), "per-mount-point flags").
_PER_MOUNT = (
    c.MS_RDONLY
    | c.MS_NOSUID
    | c.MS_NODEV
    | c.MS_NOEXEC
    | c.MS_NOATIME
    | c.MS_NODIRATIME
    | c.MS_RELATIME
    | c.MS_STRICTATIME
    | c.MS_NOSYMFOLLOW
)
_STATVFS = {
    os.ST_RDONLY: c.MS_RDONLY,
    os.ST_NOSUID: c.MS_NOSUID,
    os.ST_NODEV: c.MS_NODEV,
    os.ST_NOEXEC: c.MS_NOEXEC,
    os.ST_NOATIME: c.MS_NOATIME,
    os.ST_NODIRATIME: c.MS_NODIRATIME,
    os.ST_RELATIME: c.MS_RELATIME,
}


# Our own option: the part of the source that is mounted.
SUBPATH = "x-wherry.subpath="
# The mount namespace that a bind's source is a path of.
NAMESPACE = "x-wherry.namespace="
# Where a bind's source is, once it has been idmapped (wherry_linux.idmapped).
STAGED = "x-wherry.staged="
# As `idmap`, and what is mounted below it as well where the kernel can.
IDMAP = "x-wherry.idmap"
IDMAP_OPTIONS = frozenset(("idmap", "ridmap", IDMAP))


class Options:
    """The options of one mount, sorted by which system call they are for."""

    def __init__(self, options: list[str]) -> None:
        self.flags = 0
        self.propagation: list[int] = []
        self.recursive_set = 0
        self.recursive_clear = 0
        self.idmap = ""
        self.copy_up = False
        self.subpath = ""
        self.namespace = ""
        self.staged = ""
        data = []
        for option in options:
            if option in _FLAGS:
                flag, clears = _FLAGS[option]
                self.flags = self.flags & ~flag if clears else self.flags | flag
            elif option in _PROPAGATION:
                self.propagation.append(_PROPAGATION[option])
            elif option in _RECURSIVE:
                attributes, cleared = _RECURSIVE[option]
                self.recursive_set = self.recursive_set & ~cleared | attributes
                self.recursive_clear |= cleared
            elif option in IDMAP_OPTIONS:
                self.idmap = option
            elif option == "tmpcopyup":
                self.copy_up = True
            elif option.startswith(SUBPATH):
                self.subpath = option.removeprefix(SUBPATH)
            elif option.startswith(NAMESPACE):
                self.namespace = option.removeprefix(NAMESPACE)
            elif option.startswith(STAGED):
                self.staged = option.removeprefix(STAGED)
            else:
                data.append(option)
        self.data = ",".join(data)


def is_idmapped(entry: Mount) -> bool:
    """Whether a mount of a spec has ids of its own."""
    return bool(
        entry.get("uidMappings")
        or entry.get("gidMappings")
        or not IDMAP_OPTIONS.isdisjoint(entry.get("options") or ())
    )


def mount_into(root: int, entry: Mount, *, tree: int = -1) -> None:
    """Make one of the spec's mounts below the directory that descriptor `root` holds.

    `tree` is what is mounted in the place of its source; it is mounted nowhere yet.
    """
    options = Options(entry.get("options") or [])
    destination = posixpath.normpath("/" + entry["destination"].lstrip("/"))
    fstype = entry.get("type", "")
    source = entry.get("source", "")
    is_bind = bool(options.flags & c.MS_BIND) or fstype == "bind"
    try:
        if is_bind:
            _bind(root, options.staged or source, destination, options, tree)
        elif fstype == "overlay" and options.subpath:
            # Its source is a directory to mount it on for as long as it takes to find
            # the part that is asked for: the destination may be a file.
            mount_overlay(options, source)
            mounted = Options(["bind", SUBPATH + options.subpath])
            _bind(root, source, destination, mounted)
        elif fstype == "cgroup":
            _mount_cgroups(root, destination, options)
        else:
            _mount_new(root, fstype, source or fstype, destination, options)
    except OSError as error:
        raise KernelError(
            f"cannot mount {source or fstype} on {destination}: {error.strerror}",
            error.errno or 0,
        ) from error
    except KernelError as error:
        raise KernelError(
            f"cannot mount {source or fstype} on {destination}: {os.strerror(error.errno)}",
            error.errno,
        ) from error


# What may be mounted on below /proc: the rest decides what the kernel and programs believe.
_PROC_FILES = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo", "diskstats", "loadavg", "meminfo", "net/dev", "slabinfo", "stat", "swaps",
        "sys/crypto/fips_enabled", "sys/kernel/ns_last_pid", "uptime",
    )
)  # fmt: skip
_PROC_SUPER_MAGIC = 0x9FA0
_PROC_ROOT_INO = 1


def _check_destination(root: int, target: int, destination: str, fstype: str, source: str) -> None:
    """Refuse a mount that puts something of the image's in the place of /proc."""
    base = os.readlink(fd_path(root)).rstrip("/")
    place = os.readlink(fd_path(target)).removeprefix(base) or "/"
    if fstype in ("proc", "sysfs") and place != destination:
        raise WherryError(f"cannot mount {fstype} on {destination}: it leads to {place}")
    if place == "/proc" and fstype != "proc" and not _is_bound_procfs(source):
        raise WherryError("cannot mount on /proc: it has to be a procfs")
    if place.startswith("/proc/") and place not in _PROC_FILES:
        raise WherryError(f"cannot mount on {destination}: {place} is below /proc")


def _is_bound_procfs(source: str) -> bool:
    try:
        directory = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return is_procfs(directory)
    finally:
        os.close(directory)


def is_procfs(directory: int) -> bool:
    """Whether a descriptor is of the top of a procfs."""
    return (
        fstatfs_type(directory) == _PROC_SUPER_MAGIC
        and os.fstat(directory).st_ino == _PROC_ROOT_INO
    )


def _mount_new(root: int, fstype: str, source: str, destination: str, options: Options) -> None:
    target = open_in_root(root, destination, create="directory")
    path = fd_path(target)
    _check_destination(root, target, destination, fstype, "")
    saved = _save_for_copy_up(target) if options.copy_up else None
    try:
        if fstype == "overlay":
            mount_overlay(options, path)
        else:
            mount(source, path, fstype, options.flags & ~c.MS_REC, options.data)
    finally:
        os.close(target)
    mounted = open_in_root(root, destination)
    try:
        if saved is not None:
            _restore(mounted, saved, options.data)
        _finish(mounted, options)
    finally:
        os.close(mounted)


def _mount_cgroups(root: int, destination: str, options: Options) -> None:
    """`cgroup` in the spec: the version 2 tree, whichever version the host's tools use."""
    try:
        _mount_new(root, "cgroup2", "cgroup", destination, options)
    except KernelError as error:
        if error.errno not in (errno.EPERM, errno.EBUSY):
            raise
        # Without a control group namespace of its own it has to be the host's mount.
        bound = Options(["rbind", "ro", "nosuid", "noexec", "nodev"])
        _bind(root, "/sys/fs/cgroup", destination, bound)


def open_subpath(source: str, subpath: str) -> int:
    """A descriptor of what lies at `subpath` in `source`, where no link leads out of it."""
    directory = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return openat2(
            directory,
            subpath,
            os.O_PATH,
            resolve=c.RESOLVE_BENEATH | c.RESOLVE_NO_MAGICLINKS,
        )
    except KernelError as error:
        raise WherryError(
            f"cannot access path {posixpath.join(source, subpath)}: "
            + (
                "it leads out of what is mounted"
                if error.errno == errno.EXDEV
                else os.strerror(error.errno)
            )
        ) from error
    finally:
        os.close(directory)


def _bind(root: int, source: str, destination: str, options: Options, tree: int = -1) -> None:
    if options.namespace:
        _bind_from_namespace(root, source, destination, options)
        return
    if options.subpath:
        part = open_subpath(source, options.subpath)
        try:
            options.subpath = ""
            _bind(root, fd_path(part), destination, options)
        finally:
            os.close(part)
        return
    try:
        kind = os.stat(source).st_mode
    except OSError as error:
        raise WherryError(
            f"bind source path does not exist: {source}"
            if error.errno == errno.ENOENT
            else f"cannot read bind source path {source}: {error.strerror}"
        ) from error
    target = open_in_root(root, destination, create="directory" if stat.S_ISDIR(kind) else "file")
    recursive = options.flags & c.MS_REC
    try:
        _check_destination(root, target, destination, "bind", source)
        if tree >= 0:
            move_mount(tree, "", target, "", c.MOVE_MOUNT_F_EMPTY_PATH | c.MOVE_MOUNT_T_EMPTY_PATH)
        else:
            mount(source, fd_path(target), "", c.MS_BIND | recursive)
    finally:
        os.close(target)
    mounted = open_in_root(root, destination)
    try:
        changed = options.flags & _PER_MOUNT
        if changed:
            remount_bind(fd_path(mounted), changed)
        _finish(mounted, options)
    finally:
        os.close(mounted)


def _bind_from_namespace(root: int, source: str, destination: str, options: Options) -> None:
    """Bind a directory of another mount namespace, which mount(2) refuses."""
    target = open_in_root(root, destination, create="directory")
    try:
        _check_destination(root, target, destination, "bind", source)
        tree = _copy_from_namespace(options.namespace, source)
        try:
            move_mount(tree, "", target, "", c.MOVE_MOUNT_F_EMPTY_PATH | c.MOVE_MOUNT_T_EMPTY_PATH)
        finally:
            os.close(tree)
    finally:
        os.close(target)


def _copy_from_namespace(namespace: str, path: str) -> int:
    """A descriptor of a copy of the mount at `path` there. It is made by who is in there."""
    entered = open_namespace(namespace)
    ours, theirs = Channel.pair()
    child = start(lambda: _send_copy(theirs, entered, path))
    theirs.close()
    os.close(entered)
    try:
        return ours.expect("tree")[1]
    finally:
        ours.close()
        os.waitpid(child, 0)


def _send_copy(channel: Channel, namespace: int, path: str) -> None:
    """In a forked child: the copy, from within the mount namespace."""
    try:
        setns(namespace, c.CLONE_NEWNS)
        tree = open_tree(c.AT_FDCWD, path, c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC)
        channel.send({"tree": True}, tree)
    except BaseException as error:
        channel.send_error(error)


def remount_bind(path: str, flags: int) -> None:
    """Add per-mount flags, keeping those it has: in a user namespace they are locked."""
    present = os.statvfs(path).f_flag
    for bit, flag in _STATVFS.items():
        if present & bit:
            flags |= flag
    mount("", path, "", c.MS_REMOUNT | c.MS_BIND | flags)


def _finish(mounted: int, options: Options) -> None:
    for propagation in options.propagation:
        mount("", fd_path(mounted), "", propagation)
    if options.recursive_set or options.recursive_clear:
        mount_setattr(
            mounted,
            "",
            c.AT_EMPTY_PATH | c.AT_RECURSIVE,
            attr_set=options.recursive_set,
            attr_clr=options.recursive_clear,
        )


def _save_for_copy_up(directory: int) -> int:
    """A descriptor of what a tmpfs is about to hide."""
    return os.open(fd_path(directory), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _restore(mounted: int, saved: int, data: str) -> None:
    from wherry.container.copy import copy_tree

    try:
        target = os.open(fd_path(mounted), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            asked = os.fstat(target)
            copy_tree(saved, target)
            # tmpfs(5): what is said of the directory itself goes before what was copied.
            named = {option.partition("=")[0] for option in data.split(",")}
            os.chown(
                target,
                asked.st_uid if "uid" in named else -1,
                asked.st_gid if "gid" in named else -1,
            )
            if "mode" in named:
                os.chmod(target, stat.S_IMODE(asked.st_mode))
        finally:
            os.close(target)
    finally:
        os.close(saved)


def fd_path(descriptor: int) -> str:
    """A path of the file that a descriptor holds, for calls that take only paths."""
    return f"/proc/self/fd/{descriptor}"


def open_in_root(root: int, path: str, *, create: str = "", flags: int = os.O_PATH) -> int:
    """A descriptor of `path` with `root` as the root directory, whatever links lie on the way.

    `create`, "directory" or "file", makes what is missing. The caller owns the descriptor.
    """
    try:
        return openat2(root, path, flags, resolve=c.RESOLVE_IN_ROOT | c.RESOLVE_NO_MAGICLINKS)
    except KernelError as error:
        if error.errno != errno.ENOENT or not create:
            raise
    parent_path, name = posixpath.split(path.rstrip("/"))
    parent = open_in_root(root, parent_path or "/", create="directory")
    try:
        _create(root, parent, name, create)
    finally:
        os.close(parent)
    return openat2(root, path, flags, resolve=c.RESOLVE_IN_ROOT | c.RESOLVE_NO_MAGICLINKS)


def _create(root: int, parent: int, name: str, kind: str) -> None:
    try:
        if kind == "directory":
            os.mkdir(name, 0o755, dir_fd=parent)
        else:
            made = os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=parent)
            os.close(made)
    except FileExistsError:
        # A symbolic link to nowhere: make what it points to, still inside the root.
        try:
            link = os.readlink(name, dir_fd=parent)
        except OSError:
            return  # somebody else made it
        where = os.readlink(fd_path(parent)).removeprefix(os.readlink(fd_path(root)))
        target = posixpath.normpath(posixpath.join("/", where.lstrip("/"), link))
        os.close(open_in_root(root, target, create=kind))
