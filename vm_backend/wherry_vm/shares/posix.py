"""A shared directory on Linux and macOS: every path from the root's descriptor, name by name."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time

from wherry_vm.shares import beneath, sftp
from wherry_vm.shares.owners import SPECIAL_BITS, Owner
from wherry_vm.shares.tree import HostFile, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from wherry_vm.shares.owners import Owners

assert sys.platform != "win32"

_NO_FOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_PIN = getattr(os, "O_PATH", 0) | os.O_NOFOLLOW | os.O_CLOEXEC
_ON_LINUX = sys.platform == "linux"


class _File(HostFile):
    """A regular file of the host."""

    def read(self, size: int, offset: int) -> bytes:
        return os.pread(self.descriptor, size, offset)

    if sys.platform == "linux":

        def read_at_once(self, size: int, offset: int, /) -> bytes | None:
            buffer = bytearray(size)
            try:
                count = os.preadv(self.descriptor, [buffer], offset, os.RWF_NOWAIT)
            except OSError:  # EAGAIN, or a file system that cannot tell
                return None
            if count < size and offset + count < os.fstat(self.descriptor).st_size:
                return None  # the rest is not in memory
            return bytes(memoryview(buffer)[:count])

    def write(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            if self._appends:
                written = os.write(self.descriptor, view)
            else:
                written = os.pwrite(self.descriptor, view, offset)
            offset += written
            view = view[written:]


class PosixTree:
    """The directory `root`; see `wherry_vm.shares.tree.Tree`."""

    def __init__(self, root: str, owners: Owners, *, readonly: bool = False) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._owners = owners
        self._readonly = readonly

    def close(self) -> None:
        os.close(self._root)
        self._owners.close()

    # ---- where things are ----

    @contextlib.contextmanager
    def _parent(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """The directory that `path` is in, and its name there."""
        names = split(path)
        name = names.pop() if names else b"."
        directory = beneath.open_directory(self._root, names)
        try:
            yield directory, name
        finally:
            os.close(directory)

    @contextlib.contextmanager
    def _parent_to_change(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        self._check_writable()
        with self._parent(path) as (directory, name):
            if name == b".":
                raise PermissionError(errno.EPERM, "the share itself is the host's")
            yield directory, name

    def _check_writable(self) -> None:
        if self._readonly:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    # ---- what is known of files ----

    def attributes(self, path: bytes) -> bytes:
        with self._parent(path) as (directory, name):
            return self._attributes_at(directory, name, path)

    def status(self, path: bytes) -> os.stat_result:
        with self._parent(path) as (directory, name):
            return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def _attributes_at(self, directory: int, name: bytes, path: bytes) -> bytes:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        return self._shown(status, self._owner_at(directory, name, path, status))

    def attributes_of(self, file: _File) -> bytes:
        status = os.fstat(file.descriptor)
        pinned = f"/proc/self/fd/{file.descriptor}" if _ON_LINUX else ""
        return self._shown(status, self._owners.get(pinned, file.path, status))

    def _owner_at(self, directory: int, name: bytes, path: bytes, status: os.stat_result) -> Owner:
        pinned = ""
        if _ON_LINUX and stat.S_IFMT(status.st_mode) in (stat.S_IFREG, stat.S_IFDIR):
            # A link that takes its place can at most lend the file another's owner.
            pinned = f"/proc/self/fd/{directory}/{os.fsdecode(name)}"
        return self._owners.get(pinned, path, status)

    def _shown(self, status: os.stat_result, owner: Owner) -> bytes:
        mode = status.st_mode & ~SPECIAL_BITS | owner.bits
        return sftp.attributes(status, owner.uid, owner.gid, mode)

    def entries(self, path: bytes) -> Generator[tuple[bytes, bytes], None, None]:
        descriptor = beneath.open_directory(self._root, split(path))
        entries = self._entries(descriptor, path.rstrip(b"/"))
        next(entries)  # one that never began would not close it
        return entries

    def _entries(self, directory: int, path: bytes) -> Generator[tuple[bytes, bytes], None, None]:
        try:
            yield b"", b""
            yield b".", self._attributes_at(directory, b".", path)
            yield b"..", self._attributes_at(directory, b".", path)
            with os.scandir(directory) as found:
                for entry in found:
                    name = os.fsencode(entry.name)
                    try:
                        attributes = self._attributes_at(directory, name, path + b"/" + name)
                    except OSError:
                        continue  # it is gone
                    yield name, attributes
        finally:
            os.close(directory)

    def read_link(self, path: bytes) -> bytes:
        with self._parent(path) as (directory, name):
            return os.readlink(name, dir_fd=directory)

    def file_system(self) -> tuple[int, ...]:
        found = os.statvfs(self._root)
        return (
            found.f_bsize, found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail,
            found.f_files, found.f_ffree, found.f_favail, found.f_fsid, found.f_flag,
            found.f_namemax,
        )  # fmt: skip

    # ---- files ----

    def open(self, path: bytes, flags: int, mode: int) -> _File:
        wanted = _open_flags(flags)
        if wanted & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            self._check_writable()
        with self._parent(path) as (directory, name):
            if wanted & os.O_CREAT:
                try:
                    return self._create(directory, name, path, wanted, mode)
                except FileExistsError:
                    if wanted & os.O_EXCL:
                        raise
            descriptor = _open_regular(directory, name, wanted & ~(os.O_CREAT | os.O_EXCL))
            return _File(self, descriptor, path, appends=bool(wanted & os.O_APPEND))

    def _create(self, directory: int, name: bytes, path: bytes, flags: int, mode: int) -> _File:
        descriptor = os.open(
            name, flags | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, mode & 0o777, dir_fd=directory
        )
        try:
            status = os.fstat(descriptor)
            if (status.st_mode ^ mode) & 0o777:
                os.fchmod(descriptor, mode & 0o777)
            self._inherit(directory, path, f"/proc/self/fd/{descriptor}", status, mode)
        except BaseException:
            os.close(descriptor)
            raise
        return _File(self, descriptor, path, appends=bool(flags & os.O_APPEND))

    def _inherit(
        self, directory: int, path: bytes, pinned: str, status: os.stat_result, mode: int
    ) -> None:
        """What is made in a directory that was given to somebody is theirs: who makes it
        is not told, and is most often them."""
        parent = path.rstrip(b"/").rpartition(b"/")[0]
        owner = self._owner_at(directory, b".", parent, os.fstat(directory))
        owner = Owner(owner.uid, owner.gid, mode & SPECIAL_BITS)
        if owner != (0, 0, 0):
            self._owners.set(pinned if _ON_LINUX else "", path, status, owner)

    def remove(self, path: bytes) -> None:
        with self._parent_to_change(path) as (directory, name):
            os.unlink(name, dir_fd=directory)
        self._owners.removed(path)

    def make_directory(self, path: bytes, mode: int) -> None:
        with self._parent_to_change(path) as (directory, name):
            os.mkdir(name, mode & 0o777, dir_fd=directory)
            with _pinned(directory, name) as (pin, status):
                if (status.st_mode ^ mode) & 0o777:
                    _change_mode(directory, name, pin, mode & 0o777)
                self._inherit(directory, path, pin, status, mode)

    def remove_directory(self, path: bytes) -> None:
        with self._parent_to_change(path) as (directory, name):
            os.rmdir(name, dir_fd=directory)
        self._owners.removed(path)

    def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        before, after = self._parent_to_change(old), self._parent_to_change(new)
        with before as (source, name), after as (target, new_name):
            if not replace and _exists(target, new_name):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        self._owners.moved(old, new)

    def link(self, old: bytes, new: bytes) -> None:
        with self._parent_to_change(old) as (source, name):
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                raise PermissionError(errno.EPERM, "only regular files have hard links here")
            with self._parent_to_change(new) as (target, new_name):
                os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)

    def symlink(self, target: bytes, path: bytes) -> None:
        with self._parent_to_change(path) as (directory, name):
            os.symlink(target, name, dir_fd=directory)
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            self._inherit(directory, path, "", status, 0)

    # ---- what containers change of them ----

    def change(self, path: bytes, wanted: sftp.Attributes) -> None:
        self._check_writable()
        with self._parent(path) as (directory, name):
            if wanted.size is not None:
                descriptor = _open_regular(directory, name, os.O_WRONLY)
                try:
                    _truncate(descriptor, wanted.size)
                finally:
                    os.close(descriptor)
            if wanted.mode is not None or wanted.owner is not None:
                with _pinned(directory, name) as (pin, status):
                    self._change_access(directory, name, pin, path, status, wanted)
            if wanted.times is not None:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if times := _times(status, wanted.times):
                    os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)

    def change_open(self, file: _File, wanted: sftp.Attributes) -> None:
        self._check_writable()
        if wanted.size is not None:
            _truncate(file.descriptor, wanted.size)
        if wanted.times is not None and (times := _times(os.fstat(file.descriptor), wanted.times)):
            os.utime(file.descriptor, ns=times)
        if wanted.mode is not None or wanted.owner is not None:
            rest = sftp.Attributes()
            rest.mode, rest.owner = wanted.mode, wanted.owner
            self.change(file.path, rest)

    def _change_access(
        self,
        directory: int,
        name: bytes,
        pin: str,
        path: bytes,
        status: os.stat_result,
        wanted: sftp.Attributes,
    ) -> None:
        """Set owner and mode as far as the host's file goes, and keep the rest."""
        owner = before = self._owners.get(pin, path, status)
        if wanted.owner is not None:
            owner = Owner(*wanted.owner, owner.bits)
        if wanted.mode is not None:
            owner = Owner(owner.uid, owner.gid, wanted.mode & SPECIAL_BITS)
            if (status.st_mode ^ wanted.mode) & 0o777 and not stat.S_ISLNK(status.st_mode):
                # Somebody else's file, in the user's directory, stays as it is.
                with contextlib.suppress(PermissionError):
                    _change_mode(directory, name, pin, wanted.mode & 0o777)
        if owner != before:
            self._owners.set(pin, path, status, owner)


# ---- one name in one directory ----


@contextlib.contextmanager
def _pinned(directory: int, name: bytes) -> Iterator[tuple[str, os.stat_result]]:
    """A name for a file that stays its own, "" where there is none such; and its status."""
    if not _ON_LINUX:
        yield "", os.stat(name, dir_fd=directory, follow_symlinks=False)
        return
    descriptor = os.open(name, _PIN, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        ordinary = stat.S_IFMT(status.st_mode) in (stat.S_IFREG, stat.S_IFDIR)
        yield f"/proc/self/fd/{descriptor}" if ordinary else "", status
    finally:
        os.close(descriptor)


def _change_mode(directory: int, name: bytes, pin: str, mode: int) -> None:
    if pin:
        os.chmod(pin, mode)
    elif not _ON_LINUX:
        os.chmod(name, mode, dir_fd=directory, follow_symlinks=False)


def _open_regular(directory: int, name: bytes, flags: int) -> int:
    """A regular file that is there. Raises OSError for everything else, unopened."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    _check_regular(status)
    try:
        descriptor = os.open(name, flags | _NO_FOLLOW, dir_fd=directory)
    except PermissionError:
        # The container's root may do what its owner may not: the owner is us.
        if status.st_uid != os.geteuid():
            raise
        descriptor = _open_own(directory, name, flags)
    try:
        # What was looked at is what was opened.
        _check_regular(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_own(directory: int, name: bytes, flags: int) -> int:
    """Open a file of ours whose mode forbids it to us."""
    with _pinned(directory, name) as (pin, status):
        mode = stat.S_IMODE(status.st_mode)
        _change_mode(directory, name, pin, mode | 0o600)
        try:
            return os.open(name, flags | _NO_FOLLOW, dir_fd=directory)
        finally:
            _change_mode(directory, name, pin, mode)


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise PermissionError(errno.EACCES, "not a regular file of the host")


def _exists(directory: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _truncate(descriptor: int, size: int) -> None:
    if os.fstat(descriptor).st_size != size:
        os.ftruncate(descriptor, size)


def _times(status: os.stat_result, wanted: tuple[int, int]) -> tuple[int, int] | None:
    """Access and modification times to set; None where nothing is to be.

    SFTP has seconds. One that a file has already is not set again: its fraction would be lost.
    """
    before = (status.st_atime_ns, status.st_mtime_ns)
    after = tuple(
        old if seconds == old // 1_000_000_000 else _precise(seconds)
        for seconds, old in zip(wanted, before, strict=True)
    )
    return (after[0], after[1]) if after != before else None


def _precise(seconds: int) -> int:
    """The time with its fraction, where it is now."""
    now = time.time_ns()
    return now if now // 1_000_000_000 == seconds else seconds * 1_000_000_000


def _open_flags(flags: int) -> int:
    """SFTP's flags as open(2)'s."""
    reads, writes = flags & sftp.OPEN_READ, flags & sftp.OPEN_WRITE
    wanted = os.O_RDWR if reads and writes else os.O_WRONLY if writes else os.O_RDONLY
    for flag, ours in (
        (sftp.OPEN_APPEND, os.O_APPEND),
        (sftp.OPEN_CREATE, os.O_CREAT),
        (sftp.OPEN_TRUNCATE, os.O_TRUNC),
        (sftp.OPEN_EXCLUSIVE, os.O_EXCL),
    ):
        if flags & flag:
            wanted |= ours
    return wanted
