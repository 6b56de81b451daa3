"""The container's view of files: runtime-spec `root`, `mounts`, devices, masked paths.

Runs in the container's mount namespace, in the order of the functions here.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat

from wherry.errors import KernelError, UsageError, WherryError
from wherry.oci import MOUNT_TABLE
from wherry_linux import constants as c
from wherry_linux.mounts import (
    Options,
    fd_path,
    is_procfs,
    mount_into,
    open_in_root,
    remount_bind,
)
from wherry_linux.overlay import mount_overlay
from wherry_linux.syscalls import mount, openat2, pivot_root, umount2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.oci.runtime_spec import LinuxDevice, Mount, Spec

_PROPAGATION = {
    "": c.MS_REC | c.MS_SLAVE,
    "private": c.MS_REC | c.MS_PRIVATE,
    "rprivate": c.MS_REC | c.MS_PRIVATE,
    "slave": c.MS_REC | c.MS_SLAVE,
    "rslave": c.MS_REC | c.MS_SLAVE,
    "shared": c.MS_REC | c.MS_SHARED,
    "rshared": c.MS_REC | c.MS_SHARED,
    "unbindable": c.MS_REC | c.MS_PRIVATE,
    "runbindable": c.MS_REC | c.MS_PRIVATE,
}

# What the root becomes in the end; the others it is from the start.
_LATE_PROPAGATION = {
    "shared": c.MS_SHARED,
    "rshared": c.MS_SHARED | c.MS_REC,
    "unbindable": c.MS_UNBINDABLE,
    "runbindable": c.MS_UNBINDABLE | c.MS_REC,
}

# runtime-spec "Default Devices": every container has these.
_DEFAULT_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEFAULT_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)


def mount_root(spec: Spec) -> int:
    """Mount the root file system on its directory; a descriptor of it that the caller owns.

    A mount of the spec at "/" (wherry's bundles have an overlay there) becomes the
    root; otherwise the bundle's directory is bound onto itself, since pivot_root(2)
    wants a mount.
    """
    propagation = spec["linux"].get("rootfsPropagation", "")
    if propagation not in _PROPAGATION:
        raise UsageError(f"unknown rootfsPropagation {propagation!r}")
    mount("", "/", "", _PROPAGATION[propagation])
    root = spec["root"]["path"]
    if _PROPAGATION[propagation] & c.MS_SHARED:
        _leave_peers(os.path.realpath(root))
    over = root_mount(spec)
    if over is None:
        mount(root, root, "", c.MS_BIND | c.MS_REC)
    elif over["type"] == "overlay":
        mount_overlay(Options(over.get("options") or []), root)
    else:
        options = Options(over.get("options") or [])
        source = options.staged or over.get("source", "")
        mount(source, root, over["type"], options.flags, options.data)
    # Nothing that is mounted from here may reach the host.
    mount("", root, "", _PROPAGATION[propagation] & c.MS_SLAVE or c.MS_PRIVATE)
    return os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _leave_peers(directory: str) -> None:
    """Let what is mounted below `directory` reach nobody: pivot_root(2) wants its mount so."""
    while True:
        try:
            mount("", directory, "", c.MS_PRIVATE)
            return
        except KernelError as error:
            # EINVAL: not the top of a mount.
            if error.errno != errno.EINVAL or directory == "/":
                raise
            directory = posixpath.dirname(directory)


def root_mount(spec: Spec) -> Mount | None:
    """The spec's mount at "/", if it has one; it comes first."""
    mounts = spec.get("mounts") or []
    return mounts[0] if mounts and mounts[0]["destination"] == "/" else None


def mount_all(spec: Spec, root: int) -> None:
    """Make the spec's mounts, in their order."""
    label = spec["linux"].get("mountLabel") or ""
    for entry in spec.get("mounts") or []:
        if entry["destination"] != "/":
            mount_into(root, labelled(entry, label))


# Their files have labels of the kernel's.
_LABELLED_BY_THE_KERNEL = frozenset(("cgroup", "cgroup2", "mqueue", "proc", "sysfs"))


def labelled(entry: Mount, label: str) -> Mount:
    """`entry` with the SELinux label of `linux.mountLabel`, where it is a new file system."""
    options = entry.get("options") or []
    fstype = entry.get("type", "")
    is_bind = fstype in ("", "bind", "none") or not {"bind", "rbind"}.isdisjoint(options)
    if not label or is_bind or fstype in _LABELLED_BY_THE_KERNEL:
        return entry
    # Quoted: a label may have commas.
    return {**entry, "options": [*options, f'context="{label}"']}


def make_devices(spec: Spec, root: int, *, bind: bool) -> None:
    """The default devices and links, and those of the spec.

    `bind`: they are bound from the host, since no user namespace may make nodes.
    """
    mounts = spec.get("mounts") or []
    if not any(posixpath.normpath(entry["destination"]) == "/dev" for entry in mounts):
        return
    wanted: dict[str, LinuxDevice] = {
        f"/dev/{name}": {"path": f"/dev/{name}"} for name in _DEFAULT_DEVICES
    }
    for device in spec["linux"].get("devices") or []:
        wanted[posixpath.normpath(device["path"])] = device
    for path, device in wanted.items():
        if bind or "type" not in device:
            _bind_device(root, path, device)
        else:
            _make_node(root, path, device)
    directory = open_in_root(root, "/dev", create="directory")
    try:
        for name, link in _DEFAULT_LINKS:
            _link(directory, name, link)
        if os.path.exists("/proc/kcore"):
            _link(directory, "core", "/proc/kcore")
    finally:
        os.close(directory)


def _link(directory: int, name: str, target: str) -> None:
    try:
        os.symlink(target, name, dir_fd=directory)
    except FileExistsError:
        pass


def _bind_device(root: int, path: str, device: LinuxDevice) -> None:
    source = path
    if "type" in device and not _is_node(path, device):
        source = _find_node(device)
    target = open_in_root(root, path, create="file")
    try:
        mount(source, fd_path(target), "", c.MS_BIND)
    finally:
        os.close(target)
    _protect_node(root, path)


def _protect_node(root: int, path: str) -> None:
    """Make the mount of one of the host's own nodes read-only: its mode and owner must stay.

    Where ids are mapped to themselves the container's root is its owner. Devices can be
    written to all the same.
    """
    mounted = open_in_root(root, path)
    try:
        remount_bind(fd_path(mounted), c.MS_RDONLY | c.MS_NOSUID)
    finally:
        os.close(mounted)


def _is_node(path: str, device: LinuxDevice) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISBLK(found.st_mode) == (device["type"] == "b") and (
        os.major(found.st_rdev),
        os.minor(found.st_rdev),
    ) == (device["major"], device["minor"])


def _find_node(device: LinuxDevice) -> str:
    """The host's node of a device that the container calls otherwise (sysfs(5), dev/)."""
    numbers = f"{device['major']}:{device['minor']}"
    kind = "block" if device["type"] == "b" else "char"
    try:
        with open(f"/sys/dev/{kind}/{numbers}/uevent") as lines:
            for line in lines:
                if line.startswith("DEVNAME="):
                    return f"/dev/{line[8:].strip()}"
    except OSError:
        pass
    raise WherryError(f"the host has no node for device {kind} {numbers} ({device['path']})")


_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def _make_node(root: int, path: str, device: LinuxDevice) -> None:
    parent = open_in_root(root, posixpath.dirname(path), create="directory")
    name = posixpath.basename(path)
    try:
        if stat.S_ISLNK(_mode_of(name, parent)):
            raise WherryError(f"cannot make device {path}: the image has a symbolic link there")
        if device["type"] not in _KINDS:
            raise UsageError(f"device {path} has the unknown type {device['type']!r}")
        number = os.makedev(device.get("major", 0), device.get("minor", 0))
        mode = device.get("fileMode", 0o666)
        try:
            os.mknod(name, _KINDS[device["type"]] | mode, number, dir_fd=parent)
        except FileExistsError:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            same = stat.S_IFMT(found.st_mode) == _KINDS[device["type"]]
            if not same or (device["type"] != "p" and found.st_rdev != number):
                raise WherryError(
                    f"cannot make device {path}: the image has another file there"
                ) from None
        # By descriptor: a link that takes the name's place must not lead to the host.
        node = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.chown(fd_path(node), device.get("uid", 0), device.get("gid", 0))
            os.chmod(fd_path(node), mode)
        finally:
            os.close(node)
    finally:
        os.close(parent)


def _mode_of(name: str, parent: int) -> int:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def enter_root(root: int, *, pivot: bool = True) -> None:
    """Make the directory that `root` holds the root of this mount namespace.

    Without `pivot` the old root stays below, out of reach: a ramdisk cannot be left.
    """
    if not pivot:
        os.fchdir(root)
        mount(".", "/", "", c.MS_MOVE)
        os.chroot(".")
        os.chdir("/")
        return
    # With the same directory as both arguments the old root ends up stacked on the
    # new one, so no directory for it has to exist in the image.
    os.fchdir(root)
    pivot_root(".", ".")
    # Unmounting the old root must not reach the host it is still shared with.
    mount("", ".", "", c.MS_REC | c.MS_SLAVE)
    umount2(".", c.MNT_DETACH)
    os.chdir("/")


def share_root(propagation: str) -> None:
    """`rootfsPropagation`, once the container's root is ours; it kept to itself until then."""
    if propagation in _LATE_PROPAGATION:
        mount("", "/", "", _LATE_PROPAGATION[propagation])


def write_sysctls(root: int, sysctls: dict[str, str]) -> None:
    """Set kernel parameters, by a procfs that nothing of the image can stand in for."""
    if not sysctls:
        return
    directory = open_in_root(root, "/proc", flags=os.O_PATH | os.O_DIRECTORY)
    try:
        if not is_procfs(directory):
            raise WherryError("cannot set sysctls: the container has no /proc")
        for name, value in sysctls.items():
            try:
                # No link and no mount on the way may lead the value elsewhere (CVE-2025-52881).
                descriptor = openat2(
                    directory,
                    f"sys/{name.replace('.', '/')}",
                    os.O_WRONLY,
                    resolve=c.RESOLVE_BENEATH | c.RESOLVE_NO_XDEV | c.RESOLVE_NO_SYMLINKS,
                )
                try:
                    os.write(descriptor, value.encode())
                finally:
                    os.close(descriptor)
            except (OSError, KernelError) as error:
                raise KernelError(
                    f"cannot set sysctl {name}={value}: {os.strerror(error.errno or 0)}",
                    error.errno or 0,
                ) from error
    finally:
        os.close(directory)


def make_mount_table(root: int) -> None:
    """Make /etc/mtab where the image has none: older programs look there for what is mounted."""
    try:
        directory = open_in_root(root, "etc", create="directory")
    except (OSError, KernelError):
        return  # /etc is no directory
    try:
        os.symlink(MOUNT_TABLE, "mtab", dir_fd=directory)
    except OSError:
        pass  # it is there, or nothing can be made there
    finally:
        os.close(directory)


def make_working_directory(root: int, path: str) -> None:
    """Make `process.cwd` where the image has it not."""
    try:
        os.close(open_in_root(root, path, create="directory"))
    except (OSError, KernelError):
        pass  # changing to it tells what is the matter


def make_readonly(root: int, paths: list[str]) -> None:
    """`readonlyPaths`: each becomes a read-only mount of itself."""
    for path in paths:
        target = _open_if_there(root, path)
        if target < 0:
            continue
        try:
            mount(fd_path(target), fd_path(target), "", c.MS_BIND | c.MS_REC)
        finally:
            os.close(target)
        mounted = open_in_root(root, path)
        try:
            remount_bind(fd_path(mounted), c.MS_RDONLY | c.MS_REC)
        finally:
            os.close(mounted)


def mask(root: int, paths: list[str]) -> None:
    """`maskedPaths`: a directory is hidden by an empty file system, a file by the null device.

    Both come from the host: what an image has at /dev/null may be anything (CVE-2025-31133).
    """
    for path in paths:
        target = _open_if_there(root, path)
        if target < 0:
            continue
        try:
            if stat.S_ISDIR(os.fstat(target).st_mode):
                mount("tmpfs", fd_path(target), "tmpfs", c.MS_RDONLY, "nr_blocks=1,nr_inodes=1")
                continue
            mount("/dev/null", fd_path(target), "", c.MS_BIND)
        finally:
            os.close(target)
        _protect_node(root, path)


def _open_if_there(root: int, path: str) -> int:
    try:
        return open_in_root(root, path)
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return -1
        raise


def make_root_readonly(spec: Spec, root: int) -> None:
    """`root.readonly`, once everything that has to be made in the root is there."""
    if spec["root"].get("readonly"):
        remount_bind(fd_path(root), c.MS_RDONLY)
