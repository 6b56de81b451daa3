"""Idmapped mounts: a container's own view of who owns files (mount_setattr(2), MOUNT_ATTR_IDMAP).

The kernel asks for power over the file system, which nobody has in the container's user
namespace, and for a mount that nobody sees yet. So the first stage of a container, while
it still is who has started it, makes copies of what is to be mounted, maps them, and
leaves them in a tmpfs that becomes its working directory. The mount namespace of the
container is a copy of the one that has that tmpfs, and what is in it is mounted from
there: by paths that need no way through directories which are the host's alone.
"""

from __future__ import annotations

import errno
import os
import stat

from wherry.container.overlay import escape
from wherry.errors import KernelError, WherryError
from wherry_linux import constants as c
from wherry_linux.idmap import open_users
from wherry_linux.mounts import (
    IDMAP,
    IDMAP_OPTIONS,
    STAGED,
    SUBPATH,
    Options,
    fd_path,
    is_idmapped,
    mount_into,
    open_subpath,
)
from wherry_linux.overlay import split, unescape
from wherry_linux.syscalls import mount, mount_setattr, move_mount, open_tree, unshare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.oci.runtime_spec import Mount, Spec

_ROOT = "root"


def stage(spec: Spec, place: str, users: int) -> None:
    """Idmap what the spec wants idmapped, in a mount namespace of our own.

    It is below a tmpfs on `place`, which becomes the working directory, and the spec's
    mounts lead there. `users` is the container's user namespace; -1 for the host's.
    """
    _stage(spec, place, users, is_idmapped)


def stage_all(spec: Spec, place: str) -> None:
    """As `stage`, with everything that comes from the host, and nothing idmapped.

    For a container whose root has no way through the directories that lead there.
    """
    if not spec["mounts"] or spec["mounts"][0]["destination"] != "/":
        root: Mount = {"destination": "/", "type": "bind", "source": spec["root"]["path"]}
        spec["mounts"] = [{**root, "options": ["rbind"]}, *spec["mounts"]]
    _stage(spec, place, -1, _is_of_host)


def _is_of_host(entry: Mount) -> bool:
    options = Options(entry.get("options") or [])
    is_bind = options.flags & c.MS_BIND or entry.get("type") == "bind"
    return bool(is_bind and not options.namespace) or entry.get("type") == "overlay"


def _stage(spec: Spec, place: str, users: int, is_staged: Callable[[Mount], bool]) -> None:
    try:
        unshare(c.CLONE_NEWNS)
    except KernelError as error:
        entry = next(filter(is_idmapped, spec["mounts"]))
        raise _refusal(entry, entry["source"], error.errno) from error
    mount("", "/", "", c.MS_REC | c.MS_SLAVE)
    trees: list[int] = []
    mounts = [
        _move(entry, users, trees) if is_staged(entry) else entry
        for entry in spec.get("mounts") or []
    ]
    if mounts[0]["destination"] == "/":
        spec["root"]["path"] = _ROOT
    spec["mounts"] = mounts
    mount("tmpfs", place, "tmpfs", c.MS_NOSUID | c.MS_NODEV, "mode=755")
    os.chdir(place)
    os.mkdir(_ROOT)
    for number, tree in enumerate(trees):
        _attach(tree, str(number))


def _move(entry: Mount, users: int, trees: list[int]) -> Mount:
    """The mount of what is going to be in the staging place, and in `trees` before."""
    moved = entry.copy()
    options = [option for option in entry.get("options") or () if option not in IDMAP_OPTIONS]
    if entry.get("type") == "overlay":
        moved["options"] = _move_layers(entry, options, users, trees)
        if any(option.startswith("upperdir=") for option in options):
            # Where it is mounted for as long as it takes to find a part of it.
            moved["source"] = str(len(trees) - 1)
    else:
        moved["options"] = [*options, f"{STAGED}{len(trees)}"]
        trees.append(open_mapped(entry, entry["source"], users))
    return moved


def _move_layers(entry: Mount, options: list[str], users: int, trees: list[int]) -> list[str]:
    moved = []
    for option in split(",".join(options), ","):
        name, _, value = option.partition("=")
        if name == "lowerdir":
            places = []
            for path in split(value, ":"):
                places.append(str(len(trees)))
                trees.append(open_mapped(entry, unescape(path), users))
            option = f"lowerdir={':'.join(places)}"
        elif name in ("upperdir", "workdir"):
            above, _, name_there = unescape(value).rpartition("/")
            if name == "upperdir":
                # Both have to be on one mount.
                trees.append(open_mapped(entry, above, users))
            option = f"{name}={len(trees) - 1}/{escape(name_there)}"
        moved.append(option)
    return moved


def mount_mapped(root: int, entry: Mount) -> None:
    """Make a mount that has mappings of its own below the directory that `root` holds."""
    options = entry.get("options") or []
    subpath = Options(options).subpath
    part = -1
    source = entry["source"]
    if subpath:
        part = open_subpath(source, subpath)
        source = fd_path(part)
    try:
        tree = open_mapped(entry, source, -1)
    finally:
        if part >= 0:
            os.close(part)
    try:
        plain = entry.copy()
        plain["options"] = [option for option in options if not option.startswith(SUBPATH)]
        mount_into(root, plain, tree=tree)
    finally:
        os.close(tree)


def open_mapped(entry: Mount, source: str, users: int) -> int:
    """A descriptor, the caller's, of a mount of `source` that is nowhere yet.

    If `entry` is idmapped, by its mappings, or those of the user namespace that `users` holds.
    """
    options = Options(entry.get("options") or [])
    recursive = c.AT_RECURSIVE if options.flags & c.MS_REC else 0
    own = entry.get("uidMappings")
    maps = open_users(own, entry.get("gidMappings") or []) if own else users
    try:
        tree = open_tree(c.AT_FDCWD, source, c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC | recursive)
        try:
            if is_idmapped(entry):
                _idmap(tree, maps, options.idmap)
        except KernelError:
            os.close(tree)
            raise
    except KernelError as error:
        if not is_idmapped(entry):
            raise KernelError(
                f"cannot mount {source} on {entry['destination']}: {os.strerror(error.errno)}",
                error.errno,
            ) from error
        raise _refusal(entry, source, error.errno) from error
    finally:
        if own:
            os.close(maps)
    return tree


def _idmap(tree: int, users: int, how: str) -> None:
    if how in ("ridmap", IDMAP):
        try:
            _set_users(tree, users, c.AT_RECURSIVE)
            return
        except KernelError as error:
            # One of the file systems below cannot be idmapped; nothing has changed.
            if how == "ridmap" or error.errno != errno.EINVAL:
                raise
    _set_users(tree, users, 0)


def _set_users(tree: int, users: int, recursion: int) -> None:
    mount_setattr(
        tree, "", c.AT_EMPTY_PATH | recursion, attr_set=c.MOUNT_ATTR_IDMAP, userns_fd=users
    )


def _refusal(entry: Mount, source: str, number: int) -> WherryError:
    what = f"cannot idmap {source}"
    if entry["destination"] != "/":
        what += f" on {entry['destination']}"
    if number == errno.EINVAL:
        reason = f"its file system ({file_system(source)}) cannot be idmapped"
    elif number == errno.EPERM:
        return KernelError(
            f"{what}: the kernel lets only the host's root idmap its file system"
            f" ({file_system(source)})",
            number,
            hint="the volume option U changes owners instead; --userns keep-id keeps your own",
        )
    elif number == errno.ENOSYS:
        reason = "the kernel is older than Linux 5.12"
    elif number == errno.ENOENT:
        return WherryError(f"bind source path does not exist: {source}")
    else:
        reason = os.strerror(number)
    return KernelError(f"{what}: {reason}", number)


def file_system(path: str) -> str:
    """The type of the file system that `path` is on (proc_pid_mountinfo(5))."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo") as lines:
        for line in lines:
            fields, _, rest = line.partition(" - ")
            if fields.split()[2] == wanted:
                return rest.split()[0]
    return "unknown file system"


def _attach(tree: int, name: str) -> None:
    """Mount what `open_mapped` has opened on a new file or directory `name`."""
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.mkdir(name)
    else:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    move_mount(tree, "", c.AT_FDCWD, name, c.MOVE_MOUNT_F_EMPTY_PATH)
    os.close(tree)
