"""A layer's tar stream becomes a directory, whoever made it.

The image's author decides what is in the stream. No path of it is resolved by string:
the kernel walks each below the layer's root (openat2, RESOLVE_BENEATH), and what would
lead out of it, or through a link out of it, is an error.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from wherry.errors import CorruptState, Unsupported, WherryError
from wherry.files import storage_error, write_all
from wherry.image import tar
from wherry.image.tar import TarReader
from wherry.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.image.tar import Member

assert sys.platform == "linux"  # images are unpacked where containers run

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_AUFS = ".wh..wh."
OVERLAY_OPAQUE = "user.overlay.opaque"
# overlayfs reads these: an image must not say where a directory's files come from.
_OVERLAY_XATTRS = ("user.overlay.", "trusted.overlay.")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES = {
    tar.CHARACTER: stat.S_IFCHR,
    tar.BLOCK_DEVICE: stat.S_IFBLK,
    tar.FIFO: stat.S_IFIFO,
}
_MOST_OPEN = 64


class Unpacker:
    """Unpacks one layer into an empty directory."""

    def __init__(self, root: str, aside: str = "", large: int = 0) -> None:
        """`aside` is a directory with the contents of files of `large` bytes or more: 0, 1, …"""
        self.warnings: list[str] = []
        self._aside, self._large, self._taken = aside, large, 0
        self._root = os.open(root, _DIRECTORY)
        # What is made in a set-group-id directory would get that directory's group.
        os.fchmod(self._root, 0o755)
        self._open: dict[str, int] = {"": self._root}
        self._directories: dict[str, Member] = {}
        # What could not be kept: how often, and where first.
        self._lost: dict[str, tuple[int, str]] = {}
        self._is_root = os.geteuid() == 0

    def unpack(self, read: Callable[[int], bytes]) -> int:
        """Unpack the whole stream; the bytes that its files have."""
        size = 0
        umask = os.umask(0)
        reader = TarReader(read, aside=self._large)
        try:
            for member in reader:
                path = _clean(member.name)
                try:
                    self._add(path, member, reader)
                except OSError as error:
                    raise self._explain(error, path) from error
                except (ValueError, OverflowError) as error:
                    # A null byte in a name, a number that no system call takes.
                    raise CorruptState(f"the layer has a malformed {path!r}: {error}") from error
                size += member.size if member.type == tar.FILE else 0
            self._finish_directories()
        finally:
            os.umask(umask)
            self._forget_open()
            os.close(self._root)
        self._tell_what_is_lost()
        return size

    def _lose(self, what: str, where: str) -> None:
        count, first = self._lost.get(what, (0, where))
        self._lost[what] = (count + 1, first)

    def _tell_what_is_lost(self) -> None:
        """A line for each kind of loss, however many files it met."""
        for what, (count, first) in self._lost.items():
            more = f" and {count - 1} more" if count > 1 else ""
            self.warnings.append(f"{first}{more}: {what}")

    def _explain(self, error: OSError, path: str) -> WherryError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            return storage_error(error, f"unpack {path}")
        if error.errno == errno.EXDEV:
            return CorruptState(f"the layer reaches out of its root at {path!r}")
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return Unsupported(
                f"cannot unpack {path!r} of a layer: {error.strerror}",
                hint="layers need Linux 5.11 or later, and a file system with user attributes;"
                " WHERRY_ROOT moves wherry's data elsewhere",
            )
        return CorruptState(f"cannot unpack {path!r} of a layer: {error.strerror}")

    # ---- where ----

    def _parent(self, path: str) -> int:
        """A descriptor of the directory that holds `path`, made where it is missing."""
        return self._directory(path.rpartition("/")[0])

    def _directory(self, path: str) -> int:
        descriptor = self._open.get(path)
        if descriptor is not None:
            return descriptor
        descriptor = self._open_or_make(path)
        if len(self._open) >= _MOST_OPEN:
            self._forget_open()
        self._open[path] = descriptor
        return descriptor

    def _open_or_make(self, path: str) -> int:
        try:
            return _beneath(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
        # A stream may leave out the directories that lead to a file. Names may nest
        # deeper than calls can.
        parent, made = os.dup(self._root), ""
        for name in path.split("/"):
            made = f"{made}/{name}" if made else name
            try:
                inner = self._enter(parent, made, name)
            finally:
                os.close(parent)
            parent = inner
        return parent

    def _enter(self, parent: int, path: str, name: str) -> int:
        """The directory at `path`, which is `name` in `parent`; made where there is none."""
        try:
            return _beneath(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            is_file = error.errno == errno.ENOTDIR
        try:
            # A later directory of this name takes the place of an earlier file.
            return self._replace(parent, name) if is_file else _make(parent, name)
        except FileExistsError:
            raise CorruptState(f"the layer has a link to nowhere at {path!r}") from None

    def _replace(self, parent: int, name: str) -> int:
        """A directory in place of what is none."""
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        os.unlink(name, dir_fd=parent)
        if stat.S_ISLNK(found.st_mode):
            self._forget_open()  # what led through the link is somewhere else
        made = _make(parent, name)
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            # It was removed, and made anew: what the layers below have in it stays hidden.
            os.setxattr(made, OVERLAY_OPAQUE, b"y")
        return made

    def _forget_open(self) -> None:
        for path, descriptor in self._open.items():
            if path:
                os.close(descriptor)
        self._open = {"": self._root}

    # ---- what ----

    def _add(self, path: str, member: Member, reader: TarReader) -> None:
        name = path.rpartition("/")[2]
        if name.startswith(_WHITEOUT):
            self._white_out(path, name)
        elif not path:
            self._directories[""] = member
        elif member.type == tar.DIRECTORY:
            self._add_directory(path, name, member)
        else:
            parent = self._parent(path)
            if member.type == tar.FILE:
                self._add_file(parent, path, name, member, reader)
            elif member.type == tar.HARD_LINK:
                self._add_link(parent, path, name, member)
            else:
                self._add_special(parent, path, name, member)

    def _white_out(self, path: str, name: str) -> None:
        parent = self._parent(path)
        if name == _OPAQUE:
            os.setxattr(parent, OVERLAY_OPAQUE, b"y")
            return
        if name.startswith(_AUFS):
            return  # aufs's own bookkeeping
        hidden = name[len(_WHITEOUT) :]
        if not hidden or "/" in hidden or hidden in (".", ".."):
            raise CorruptState(f"the layer has a malformed whiteout {path!r}")
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            # A whiteout is about the layers below; what this layer has itself stays.
            if stat.S_ISDIR(os.stat(hidden, dir_fd=parent, follow_symlinks=False).st_mode):
                below = os.open(hidden, _DIRECTORY, dir_fd=parent)
                os.setxattr(below, OVERLAY_OPAQUE, b"y")
                os.close(below)

    def _add_directory(self, path: str, name: str, member: Member) -> None:
        parent = os.dup(self._parent(path))
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.close(self._replace(parent, name))
        finally:
            os.close(parent)
        # Its mode may keep even us from writing into it, and its time changes with
        # every file: both come last.
        self._directories[path] = member

    def _add_file(
        self, parent: int, path: str, name: str, member: Member, reader: TarReader
    ) -> None:
        make = self._take if reader.is_aside(member) else _new
        try:
            file = make(parent, name, member)
        except FileExistsError:
            self._clear(parent, path, name)
            file = make(self._parent(path), name, member)
        try:
            for piece in reader.pieces():
                write_all(file, piece)
            self._finish(file, path, member)
        finally:
            os.close(file)

    def _take(self, parent: int, name: str, member: Member) -> int:
        """A file whose content has been put aside, in its place. Raises FileExistsError."""
        source = f"{self._aside}/{self._taken}"
        os.link(source, name, dst_dir_fd=parent)
        os.unlink(source)
        self._taken += 1
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent)
        os.fchmod(file, member.mode & 0o777)
        return file

    def _finish(self, descriptor: int, path: str, member: Member) -> None:
        """Owner, mode, attributes and time of what `descriptor` holds, in this order.

        A change of owner takes away set-user-id bits and capabilities.
        """
        mode = member.mode
        if member.uid or member.gid or not self._is_root:
            mode = self._own(path, member, lambda uid, gid: os.fchown(descriptor, uid, gid))
        if mode & 0o7000 or member.type == tar.DIRECTORY:
            os.fchmod(descriptor, mode)
        if member.xattrs:
            self._set_xattrs(descriptor, path, member)
        os.utime(descriptor, ns=(member.mtime_ns, member.mtime_ns))

    def _own(self, path: str, member: Member, chown: Callable[[int, int], None]) -> int:
        """Give a file its owner, as far as the ids are mapped here; the mode that it may have.

        A file that stays root's own must not run as root for what its author meant for another.
        """
        try:
            chown(member.uid, member.gid)
            return member.mode
        except OSError as error:
            # An id that is not mapped here (EINVAL), or no right to give files away (EPERM).
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
        mode = member.mode
        for uid, gid, bit in ((member.uid, -1, stat.S_ISUID), (-1, member.gid, stat.S_ISGID)):
            try:
                chown(uid, gid)
            except OSError:
                mode &= ~bit
        self._lose(self._foreign_ids(), f"{path} ({member.uid}:{member.gid})")
        return mode

    def _foreign_ids(self) -> str:
        if self._is_root and mapped_ids() > 1:
            return (
                "belongs to an id beyond those that this user has, and to root instead;"
                " more of them in /etc/subuid and /etc/subgid mend it"
            )
        return "belongs to root instead, as this user has a single id; `wherry doctor` shows more"

    def _set_xattrs(self, descriptor: int, path: str, member: Member) -> None:
        for key, value in member.xattrs.items():
            if key.startswith(_OVERLAY_XATTRS):
                continue
            try:
                os.setxattr(descriptor, key, value)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL):
                    raise
                self._lose(f"the attribute {key} cannot be kept here", path)

    def _add_link(self, parent: int, path: str, name: str, member: Member) -> None:
        target = _clean(member.linkname)
        if not target:
            raise CorruptState(f"the layer has a hard link to its root at {path!r}")
        directory, _, base = target.rpartition("/")
        try:
            source = _beneath(self._root, directory or ".", os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise _no_target(path, member) from None
        try:
            for attempt in range(2):
                try:
                    os.link(base, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
                    return
                except FileExistsError:
                    if attempt or path == target:
                        if path == target:
                            return
                        raise
                    self._clear(parent, path, name)
                    parent = self._parent(path)
                except FileNotFoundError:
                    raise _no_target(path, member) from None
        finally:
            os.close(source)

    def _add_special(self, parent: int, path: str, name: str, member: Member) -> None:
        for attempt in range(2):
            try:
                if member.type == tar.SYMLINK:
                    os.symlink(member.linkname, name, dir_fd=parent)
                else:
                    number = os.makedev(member.major, member.minor)
                    os.mknod(name, _NODES[member.type] | member.mode, number, dir_fd=parent)
                break
            except FileExistsError:
                if attempt:
                    raise
                self._clear(parent, path, name)
                parent = self._parent(path)
            except PermissionError:
                if member.type in (tar.CHARACTER, tar.BLOCK_DEVICE):
                    self._lose("the device node is left out: only root can make one", path)
                    return
                raise
        mode = member.mode
        if member.uid or member.gid or not self._is_root:
            mode = self._own(
                path,
                member,
                lambda uid, gid: os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False),
            )
        if member.type != tar.SYMLINK and mode & 0o7000:
            os.chmod(name, mode, dir_fd=parent)
        times = (member.mtime_ns, member.mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def _clear(self, parent: int, path: str, name: str) -> None:
        """Make room for a later member of the same name."""
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            from wherry.container.copy import remove_tree

            self._forget_open()
            below = f"{path}/"
            self._directories = {
                other: member
                for other, member in self._directories.items()
                if other != path and not other.startswith(below)
            }
            remove_tree(f"/proc/self/fd/{self._parent(path)}/{name}")
        else:
            os.unlink(name, dir_fd=parent)
            if stat.S_ISLNK(mode):
                self._forget_open()  # what led through the link is somewhere else

    def _finish_directories(self) -> None:
        """The deepest first: a directory's mode may close it, its times change from within."""
        self._forget_open()
        for path in sorted(self._directories, reverse=True):
            member = self._directories[path]
            try:
                descriptor = _beneath(
                    self._root, path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                )
            except OSError as error:
                raise self._explain(error, path) from error
            try:
                self._finish(descriptor, path, member)
            finally:
                os.close(descriptor)


def _new(parent: int, name: str, member: Member) -> int:
    return os.open(name, _NEW, member.mode & 0o777, dir_fd=parent)


def _make(parent: int, name: str) -> int:
    os.mkdir(name, 0o755, dir_fd=parent)
    return os.open(name, _DIRECTORY, dir_fd=parent)


def mapped_ids() -> int:
    """How many users this process can give files to."""
    with open("/proc/self/uid_map") as lines:
        return sum(int(line.split()[2]) for line in lines)


def _no_target(path: str, member: Member) -> CorruptState:
    return CorruptState(f"hard link {path!r} leads to {member.linkname!r}, which the layer has not")


def _clean(name: str) -> str:
    """A member's path below the root, "" for the root itself. Raises CorruptState for `..`."""
    if "//" not in name and not name.startswith(("/", "./")) and "/." not in name and name != ".":
        if name == ".." or name.startswith("../"):
            raise CorruptState(f"the layer reaches out of its root at {name!r}")
        return name
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise CorruptState(f"the layer reaches out of its root at {name!r}")
    return "/".join(parts)


def _beneath(root: int, path: str, flags: int) -> int:
    """A descriptor, the caller's, of a path that does not lead out of `root`. Raises OSError."""
    try:
        return openat2(root, path, flags, resolve=RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno == errno.ELOOP:
            error.errno = errno.EXDEV
        raise
