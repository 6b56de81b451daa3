"""Trees of files, copied and removed by directory descriptors.

No path is ever walked twice and no symbolic link is followed, so a tree made by an
image or a container cannot lead these functions anywhere else. Linux only.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from wherry.errors import Unsupported, UsageError
from wherry.files import storage_error
from wherry.lean import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Owners = Callable[[os.stat_result], tuple[int, int]]

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_FILE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_CHUNK = 16 << 20
_PIECE = 1 << 20
_CAPABILITY = "security.capability"
# overlayfs keeps its own notes in these; outside a layer they mean nothing.
_OVERLAY_NOTES = ("user.overlay.", "trusted.overlay.")
# One descriptor is open per level while a tree is removed.
_DEEP = 64
# Characters of a path, each of which may be four bytes.
_LONG = 700


def copy_tree(source: int, target: int, *, owners: Owners | None = None) -> None:
    """Copy what directory `source` holds into the empty directory `target`, and how it is.

    Both are descriptors of directories and stay open. Owners, modes, times, extended
    attributes, links and holes are kept; sockets are left out, and device nodes where
    this user may make none. With `owners`, which says what the owners of the original
    become, the copy is one of a layer, with overlayfs' own marks.
    """
    try:
        _Copy(target, owners).directory(source, target)
    except OSError as error:
        raise storage_error(error, f"copy {error.filename or 'a tree'}") from error


class _Copy:
    """One run of `copy_tree`: what is linked more than once, and where it went first."""

    def __init__(self, root: int, owners: Owners | None) -> None:
        self.root = root
        self.owners = owners
        self.linked: dict[tuple[int, int], str] = {}

    def directory(self, source: int, target: int, path: str = "") -> None:
        for name in os.listdir(source):
            self.entry(source, target, name, os.path.join(path, name))
        copy_attributes(source, target, os.fstat(source), self.owners)

    def entry(self, source: int, target: int, name: str, path: str) -> None:
        if sys.platform == "win32":
            raise Unsupported("trees are copied on Linux only")
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            self.subdirectory(source, target, name, path)
            return
        key = (found.st_dev, found.st_ino)
        if key in self.linked:
            os.link(
                self.linked[key],
                name,
                src_dir_fd=self.root,
                dst_dir_fd=target,
                follow_symlinks=False,
            )
            return
        if stat.S_ISREG(found.st_mode):
            _copy_file(source, target, name, self.owners)
        elif stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif not _copy_node(target, name, found, is_layer=self.owners is not None):
            return
        if not stat.S_ISREG(found.st_mode):
            _own(name, found, target, self.owners)
        if found.st_nlink > 1:
            self.linked[key] = path

    def subdirectory(self, source: int, target: int, name: str, path: str) -> None:
        inner_source = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            os.mkdir(name, 0o700, dir_fd=target)
            inner_target = os.open(name, _DIRECTORY, dir_fd=target)
            try:
                self.directory(inner_source, inner_target, path)
            finally:
                os.close(inner_target)
        finally:
            os.close(inner_source)


def _copy_file(source: int, target: int, name: str, owners: Owners | None) -> None:
    reader = open_file(name, source)
    try:
        writer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=target)
        try:
            found = os.fstat(reader)
            copy_content(reader, writer, found.st_size)
            copy_attributes(reader, writer, found, owners)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def open_file(name: str, directory: int) -> int:
    """A descriptor of a regular file, to read; OSError (ENXIO) if it is none any more.

    To open a device could do something to it: what it is is looked at before.
    """
    if sys.platform != "linux":
        return os.open(name, _FILE, dir_fd=directory)
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO), name)
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY)
    finally:
        os.close(handle)


def copy_content(
    reader: int, writer: int, size: int, tell: Callable[[int], object] = lambda _: None
) -> None:
    """Copy `size` bytes from the start of one open file to another, holes as holes.

    `tell` is told again and again how many bytes of the copy are what they will be.
    """
    if sys.platform != "linux":
        raise Unsupported("trees are copied on Linux only")
    os.ftruncate(writer, size)
    position = 0
    while position < size:
        try:
            start = os.lseek(reader, position, os.SEEK_DATA)
            end = min(os.lseek(reader, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # nothing but a hole up to the end
            start, end = position, size
        _copy_range(reader, writer, start, end, tell)
        position = end
    tell(size)


def copied(reader: int, writer: int, size: int) -> Iterator[memoryview]:
    """Copy `size` bytes from one open file to another, and give what the copy holds, in pieces.

    Another thread copies, ahead of who takes the pieces, and has the disk begin to write. A
    piece is good until the next.
    """
    if sys.platform == "win32":
        raise Unsupported("trees are copied on Linux only")
    from queue import SimpleQueue
    from threading import Thread

    from wherry.writing_out import begin_writing_out

    told: SimpleQueue[int | OSError] = SimpleQueue()

    def tell(position: int) -> None:
        told.put(position)
        begin_writing_out(writer)

    def work() -> None:
        try:
            copy_content(reader, writer, size, tell)
        except OSError as error:
            told.put(error)

    thread = Thread(target=work)
    thread.start()
    try:
        buffer = memoryview(bytearray(_PIECE))
        position = 0
        while position < size:
            ready = told.get()
            if isinstance(ready, OSError):
                raise ready
            while position < ready:
                end = min(_PIECE, ready - position)
                read = os.preadv(writer, [buffer[:end]], position)
                position += read
                yield buffer[:read]
    finally:
        thread.join()


def _copy_range(
    reader: int, writer: int, position: int, end: int, tell: Callable[[int], object]
) -> None:
    if sys.platform != "linux":
        raise Unsupported("trees are copied on Linux only")
    try:
        while position < end:
            done = os.copy_file_range(
                reader, writer, min(end - position, _CHUNK), position, position
            )
            if done == 0:
                return  # the file has become shorter
            position += done
            tell(position)
        return
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    os.lseek(writer, position, os.SEEK_SET)
    while position < end:
        done = os.sendfile(writer, reader, position, min(end - position, _CHUNK))
        if done == 0:
            return
        position += done
        tell(position)


def _copy_node(target: int, name: str, found: os.stat_result, *, is_layer: bool) -> bool:
    """Make a fifo or a device node; whether it could be made."""
    if sys.platform == "win32":
        raise Unsupported("trees are copied on Linux only")
    if stat.S_ISFIFO(found.st_mode):
        os.mkfifo(name, 0o600, dir_fd=target)
        return True
    # A character device 0:0 is overlayfs' mark of a removed file.
    is_mark = stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
    if stat.S_ISSOCK(found.st_mode) or (is_mark and not is_layer):
        return False
    try:
        os.mknod(name, stat.S_IFMT(found.st_mode) | 0o600, found.st_rdev, dir_fd=target)
    except PermissionError:
        return False
    return True


def _own(name: str, found: os.stat_result, target: int, owners: Owners | None) -> None:
    """Give owner, mode and times to what is no file and no directory."""
    if sys.platform == "win32":
        raise Unsupported("trees are copied on Linux only")
    uid, gid = owners(found) if owners else (found.st_uid, found.st_gid)
    os.chown(name, uid, gid, dir_fd=target, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        change_mode(name, stat.S_IMODE(found.st_mode), target)
    os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def change_mode(name: str, mode: int, directory: int) -> None:
    """chmod(2) of what has just been made there, and of nothing else.

    A container that sees it may have put a link in its place, which chmod(2) would follow.
    """
    if sys.platform != "linux":
        os.chmod(name, mode, dir_fd=directory)
        return
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
    try:
        if not stat.S_ISLNK(os.fstat(handle).st_mode):
            os.chmod(f"/proc/self/fd/{handle}", mode)
    finally:
        os.close(handle)


def copy_attributes(
    source: int, target: int, found: os.stat_result, owners: Owners | None = None
) -> None:
    """Owner, then mode (a change of owner clears setuid), extended attributes and times."""
    if sys.platform != "linux":
        raise Unsupported("trees are copied on Linux only")
    uid, gid = owners(found) if owners else (found.st_uid, found.st_gid)
    os.fchown(target, uid, gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    for name in _attribute_names(source):
        if owners is None and name.startswith(_OVERLAY_NOTES):
            continue
        try:
            content = os.getxattr(source, name)
            if owners is not None and name == _CAPABILITY:
                content = _move_capability(content, owners)
            os.setxattr(target, name, content)
        except OSError as error:
            # This file system has none of this kind, or this user may not set it.
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.ENODATA):
                raise
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _move_capability(content: bytes, owners: Owners) -> bytes:
    """A file's capabilities, for the root whom `owners` makes of theirs (capabilities(7)).

    Version 3 has the id of the root of the user namespace in which they count, version 2 is
    for that of this process.
    """
    if len(content) not in (20, 24):
        return content
    magic = int.from_bytes(content[:4], "little")
    root = int.from_bytes(content[20:24], "little")
    new, _ = owners(os.stat_result((0, 0, 0, 0, root, 0, 0, 0, 0, 0)))
    version = 0x03000000 if new else 0x02000000
    head = (magic & 0xFFFFFF | version).to_bytes(4, "little")
    return head + content[4:20] + (new.to_bytes(4, "little") if new else b"")


def _attribute_names(source: int) -> list[str]:
    if sys.platform != "linux":
        raise Unsupported("trees are copied on Linux only")
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return []
        raise
    return names


def change_owner_of(path: str, uid: int, gid: int) -> None:
    """Give what is at `path`, followed once, and all below it to one owner. Raises OSError."""
    if sys.platform == "win32":
        raise Unsupported("owners are changed on Linux only")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            change_owner(descriptor, uid, gid)
        else:
            os.fchown(descriptor, uid, gid)
    finally:
        os.close(descriptor)


def give_to(path: str, uid: int, gid: int) -> None:
    """Make a file a user's of the container. Raises UsageError where there is no such user."""
    try:
        posix.chown(path, uid, gid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise UsageError(
            f"cannot give anything to user {uid}:{gid}",
            hint="the id is not mapped into the container: /etc/subuid and /etc/subgid decide",
        ) from error


def change_owner(directory: int, uid: int, gid: int) -> None:
    """Give everything in `directory`, and itself, to one owner."""
    if sys.platform == "win32":
        raise Unsupported("owners are changed on Linux only")
    for name in os.listdir(directory):
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            inner = os.open(name, _DIRECTORY, dir_fd=directory)
            try:
                change_owner(inner, uid, gid)
            finally:
                os.close(inner)
        else:
            os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
    os.fchown(directory, uid, gid)


def tree_size(path: str) -> int:
    """The bytes that the files below `path` occupy, links counted once. Raises OSError."""
    sizes = _Sizes()
    waiting: list[str | int] = [path]
    try:
        while waiting:
            directory = waiting.pop()
            if isinstance(directory, int):
                os.close(directory)
                continue
            if sys.platform == "linux" and len(directory) > _LONG:
                # The kernel takes no path of more than 4096 bytes: begin a new one here, and
                # close it once all below it, which is popped before it, has been counted.
                waiting.append(os.open(directory, _DIRECTORY))
                directory = f"/proc/self/fd/{waiting[-1]}"
            waiting += sizes.count(directory)
    finally:
        for left in waiting:
            if isinstance(left, int):
                os.close(left)
    return sizes.total


class _Sizes:
    """What the files of a tree occupy together."""

    def __init__(self) -> None:
        self.total = 0
        self.seen: set[tuple[int, int]] = set()

    def count(self, directory: str) -> list[str]:
        """Add the files of a directory; the directories in it."""
        found = []
        with os.scandir(directory) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    found.append(entry.path)
                elif status.st_nlink == 1 or (status.st_dev, status.st_ino) not in self.seen:
                    self.seen.add((status.st_dev, status.st_ino))
                    self.total += status.st_size
        return found


def empty_directory(directory: int) -> None:
    """Remove everything that `directory` holds."""
    _Removal(directory).empty(directory, 0)


def remove_tree(path: str) -> None:
    """Remove `path` and all below it, if it is there. Raises OSError."""
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(path)
        return
    except PermissionError:
        os.rmdir(path)  # a closed directory may still be an empty one
        return
    try:
        empty_directory(top)
    finally:
        os.close(top)
    os.rmdir(path)


class _Removal:
    """One run of `empty_directory`. Directories that lie deep are first moved to the top.

    A container may nest directories deeper than there are descriptors or stack frames.
    """

    def __init__(self, top: int) -> None:
        self.top = top

    def empty(self, directory: int, depth: int) -> None:
        while names := os.listdir(directory):
            for name in names:
                self.remove(directory, name, depth)
            if directory != self.top:
                return

    def remove(self, directory: int, name: str, depth: int) -> None:
        try:
            os.unlink(name, dir_fd=directory)
            return
        except FileNotFoundError:
            return
        except IsADirectoryError:
            pass
        except PermissionError:
            # macOS' word for a directory; elsewhere the next call says what is wrong.
            pass
        try:
            os.rmdir(name, dir_fd=directory)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if depth >= _DEEP:
            os.rename(name, f".{os.urandom(16).hex()}", src_dir_fd=directory, dst_dir_fd=self.top)
            return
        inner = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            self.empty(inner, depth + 1)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=directory)
