"""A shared directory on Windows.

Windows has no calls that start at an open directory. Instead the directory that a file is
in is opened first, without letting others delete it: as long as it is open neither it nor
anything above it can be renamed or replaced, and where the handle says that it is what
its path says, no link was on the way.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import sys

from wherry.files import write_all
from wherry_vm.shares import sftp
from wherry_vm.shares.owners import Owner
from wherry_vm.shares.tree import HostFile, split
from wherry_vm.shares.windows_names import from_windows, long_path, to_windows

assert sys.platform == "win32"

import msvcrt  # noqa: E402 - there is none elsewhere
from ctypes import wintypes  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from wherry_vm.shares.owners import Owners

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.CreateFileW.restype = wintypes.HANDLE
_kernel32.CreateFileW.argtypes = (
    wintypes.LPCWSTR, wintypes.DWORD, wintypes.DWORD, wintypes.LPVOID, wintypes.DWORD,
    wintypes.DWORD, wintypes.HANDLE,
)  # fmt: skip
_kernel32.GetFinalPathNameByHandleW.argtypes = (
    wintypes.HANDLE, wintypes.LPWSTR, wintypes.DWORD, wintypes.DWORD,
)  # fmt: skip
_kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)

_INVALID = wintypes.HANDLE(-1).value
_GENERIC_READ, _GENERIC_WRITE, _LIST_DIRECTORY = 0x80000000, 0x40000000, 0x1
_SHARE_READ, _SHARE_WRITE, _SHARE_DELETE = 1, 2, 4
_CREATE_NEW, _OPEN_EXISTING, _TRUNCATE_EXISTING = 1, 3, 5
_OPEN_REPARSE_POINT, _BACKUP_SEMANTICS = 0x00200000, 0x02000000
_NAME_SURROGATE = 0x20000000

_KEPT_MODE = 0o10000
"""In the bits of an owner: they are the whole mode, which Windows has no place for."""


class _File(HostFile):
    """A regular file of the host. One thread at a time has it."""

    def read(self, size: int, offset: int) -> bytes:
        os.lseek(self.descriptor, offset, os.SEEK_SET)
        return os.read(self.descriptor, size)

    def write(self, data: bytes, offset: int) -> None:
        if self._appends:
            os.lseek(self.descriptor, 0, os.SEEK_END)
        else:
            os.lseek(self.descriptor, offset, os.SEEK_SET)
        write_all(self.descriptor, data)


class WindowsTree:
    """The directory `root`; see `wherry_vm.shares.tree.Tree`."""

    def __init__(self, root: str, owners: Owners, *, readonly: bool = False) -> None:
        self._handle = _open(long_path(os.path.abspath(root)), _LIST_DIRECTORY, _SHARE_READ | 2)
        self._root = _final_path(self._handle)
        self._owners = owners
        self._readonly = readonly

    def close(self) -> None:
        _kernel32.CloseHandle(self._handle)
        self._owners.close()

    # ---- where things are ----

    @contextlib.contextmanager
    def _place(self, path: bytes) -> Iterator[str]:
        """Where `path` is on the disk, while nothing above it can change."""
        names = [to_windows(each) for each in split(path)]
        parent = "\\".join((self._root, *names[:-1]))
        handle = _open(parent, _LIST_DIRECTORY, _SHARE_READ | _SHARE_WRITE)
        try:
            if _final_path(handle).lower() != parent.lower():
                raise FileNotFoundError(errno.ENOENT, "a link in the middle of the path")
            yield "\\".join((self._root, *names))
        finally:
            _kernel32.CloseHandle(handle)

    @contextlib.contextmanager
    def _place_to_change(self, path: bytes) -> Iterator[str]:
        self._check_writable()
        if not split(path):
            raise PermissionError(errno.EPERM, "the share itself is the host's")
        with self._place(path) as place:
            yield place

    def _check_writable(self) -> None:
        if self._readonly:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    # ---- what is known of files ----

    def attributes(self, path: bytes) -> bytes:
        with self._place(path) as place:
            return self._shown(os.lstat(place), path)

    def status(self, path: bytes) -> os.stat_result:
        with self._place(path) as place:
            return os.lstat(place)

    def attributes_of(self, file: _File) -> bytes:
        return self._shown(os.fstat(file.descriptor), file.path)

    def _shown(self, status: os.stat_result, path: bytes) -> bytes:
        owner = self._owners.get("", path, status)
        # Windows has no permission to execute: everything is a program.
        mode = owner.bits & 0o7777 if owner.bits & _KEPT_MODE else 0o755
        kind = stat.S_IFLNK if _leads_elsewhere(status) else stat.S_IFMT(status.st_mode)
        return sftp.attributes(status, owner.uid, owner.gid, kind | mode)

    def entries(self, path: bytes) -> Generator[tuple[bytes, bytes], None, None]:
        with self._place(path + b"/.placeholder") as place:
            names = os.listdir(place.rpartition("\\")[0])
        return self._entries(path, names)

    def _entries(self, path: bytes, names: list[str]) -> Generator[tuple[bytes, bytes], None, None]:
        here = path.rstrip(b"/")
        yield b".", self.attributes(here)
        yield b"..", self.attributes(here)
        for each in names:
            name = from_windows(each)
            try:
                yield name, self.attributes(here + b"/" + name)
            except OSError:
                continue  # it is gone

    def read_link(self, path: bytes) -> bytes:
        with self._place(path) as place:
            target = os.readlink(place).removeprefix("\\\\?\\")
        return target.replace("\\", "/").encode(errors="surrogatepass")

    def file_system(self) -> tuple[int, ...]:
        import shutil

        usage = shutil.disk_usage(self._root)
        block = 4096
        total, free = usage.total // block, usage.free // block
        return (block, block, total, free, free, 0, 0, 0, 0, 0, 255)

    # ---- files ----

    def open(self, path: bytes, flags: int, mode: int) -> _File:
        changes = flags & (sftp.OPEN_WRITE | sftp.OPEN_CREATE | sftp.OPEN_TRUNCATE)
        if changes:
            self._check_writable()
        appends = bool(flags & sftp.OPEN_APPEND)
        with self._place(path) as place:
            if flags & sftp.OPEN_CREATE:
                try:
                    file = _File(self, _open_file(place, flags, _CREATE_NEW), path, appends=appends)
                except FileExistsError:
                    if flags & sftp.OPEN_EXCLUSIVE:
                        raise
                else:
                    self._keep(path, place, mode=mode)
                    return file
            status = os.lstat(place)
            if _leads_elsewhere(status) or not stat.S_ISREG(status.st_mode):
                raise PermissionError(errno.EACCES, "not a regular file of the host")
            how = _TRUNCATE_EXISTING if flags & sftp.OPEN_TRUNCATE else _OPEN_EXISTING
            return _File(self, _open_file(place, flags, how), path, appends=appends)

    def remove(self, path: bytes) -> None:
        with self._place_to_change(path) as place:
            os.unlink(place)
        self._owners.removed(path)

    def make_directory(self, path: bytes, mode: int) -> None:
        with self._place_to_change(path) as place:
            os.mkdir(place)
            self._keep(path, place, mode=mode)

    def remove_directory(self, path: bytes) -> None:
        with self._place_to_change(path) as place:
            os.rmdir(place)
        self._owners.removed(path)

    def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        with self._place_to_change(old) as source, self._place_to_change(new) as target:
            if replace:
                os.replace(source, target)
            else:
                os.rename(source, target)
        self._owners.moved(old, new)

    def link(self, old: bytes, new: bytes) -> None:
        with self._place_to_change(old) as source, self._place_to_change(new) as target:
            status = os.lstat(source)
            if _leads_elsewhere(status) or not stat.S_ISREG(status.st_mode):
                raise PermissionError(errno.EPERM, "only regular files have hard links here")
            os.link(source, target)

    def symlink(self, target: bytes, path: bytes) -> None:
        with self._place_to_change(path) as place:
            # Without the developer mode Windows lets only administrators do this.
            os.symlink(target.decode().replace("/", "\\"), place)

    # ---- what containers change of them ----

    def change(self, path: bytes, wanted: sftp.Attributes) -> None:
        self._check_writable()
        with self._place(path) as place:
            status = os.lstat(place)
            if _leads_elsewhere(status):
                return
            if wanted.size is not None and wanted.size != status.st_size:
                descriptor = _open_file(place, sftp.OPEN_WRITE, _OPEN_EXISTING)
                try:
                    os.ftruncate(descriptor, wanted.size)
                finally:
                    os.close(descriptor)
            if wanted.mode is not None or wanted.owner is not None:
                self._keep(path, place, mode=wanted.mode, owner=wanted.owner)
            if wanted.times is not None:
                before = (status.st_atime_ns, status.st_mtime_ns)
                after = tuple(
                    old if seconds == old // 1_000_000_000 else seconds * 1_000_000_000
                    for seconds, old in zip(wanted.times, before, strict=True)
                )
                os.utime(place, ns=(after[0], after[1]))

    def change_open(self, file: _File, wanted: sftp.Attributes) -> None:
        self._check_writable()
        if wanted.size is not None and wanted.size != os.fstat(file.descriptor).st_size:
            os.ftruncate(file.descriptor, wanted.size)
        wanted.size = None
        self.change(file.path, wanted)

    def _keep(
        self,
        path: bytes,
        place: str,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
    ) -> None:
        status = os.lstat(place)
        before = self._owners.get("", path, status)
        bits = before.bits if mode is None else mode & 0o7777 | _KEPT_MODE
        if bits == (0o755 | _KEPT_MODE):
            bits = 0
        after = Owner(*(owner or before[:2]), bits)
        if after != before:
            self._owners.set("", path, status, after)


def _open(path: str, access: int, share: int) -> int:
    """A handle of a directory that is no link's. Raises OSError."""
    flags = _OPEN_REPARSE_POINT | _BACKUP_SEMANTICS
    handle = _kernel32.CreateFileW(path, access, share, None, _OPEN_EXISTING, flags, None)
    if handle == _INVALID:
        raise ctypes.WinError(ctypes.get_last_error())
    return int(handle)


def _open_file(place: str, flags: int, how: int) -> int:
    """A descriptor; others may delete and rename the file meanwhile, as on POSIX."""
    access = _GENERIC_READ if flags & sftp.OPEN_READ else 0
    if flags & sftp.OPEN_WRITE or how != _OPEN_EXISTING:
        access |= _GENERIC_WRITE
    share = _SHARE_READ | _SHARE_WRITE | _SHARE_DELETE
    handle = _kernel32.CreateFileW(place, access, share, None, how, _OPEN_REPARSE_POINT, None)
    if handle == _INVALID:
        raise ctypes.WinError(ctypes.get_last_error())
    writes = os.O_RDWR if access & _GENERIC_WRITE else os.O_RDONLY
    return msvcrt.open_osfhandle(handle, writes | os.O_BINARY | os.O_NOINHERIT)


def _final_path(handle: int) -> str:
    buffer = ctypes.create_unicode_buffer(32768)
    size = _kernel32.GetFinalPathNameByHandleW(handle, buffer, len(buffer), 0)
    if not 0 < size < len(buffer):
        raise ctypes.WinError(ctypes.get_last_error())
    return buffer.value


def _leads_elsewhere(status: os.stat_result) -> bool:
    """A symbolic link or a junction."""
    return stat.S_ISLNK(status.st_mode) or bool(status.st_reparse_tag & _NAME_SURROGATE)
