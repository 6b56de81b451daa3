"""Trees of files as tar streams, by directory descriptors.

What a container has made is read and written one name at a time below an open
directory, and no symbolic link is ever followed: a tree that changes while it is
copied can spoil the copy, but lead it nowhere else. POSIX only.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from wherry.container.copy import change_mode, open_file
from wherry.errors import CorruptState, KernelError, Unsupported, UsageError, WherryError
from wherry.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Mapping, Sequence
    from typing import BinaryIO

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_XATTR = "SCHILY.xattr."
_CAPABILITY = "security.capability"
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)


# ---- from files to tar ----


def pack(directory: int, name: str, out: BinaryIO, rename: str) -> None:
    """Write `name` in the open `directory` to `out`, called `rename` in the archive.

    "." as `name` is the directory itself, and as `rename` its contents alone.
    """
    import tarfile

    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        _Packer(archive).entry(directory, name, rename)


def pack_to(writer: int, directory: int, name: str, rename: str, failure: str) -> None:
    """`pack` to a descriptor, which stays open.

    Raises KernelError (EPIPE) where nobody reads it, and WherryError that begins with
    `failure`.
    """
    try:
        with open(writer, "wb", buffering=1 << 16, closefd=False) as out:
            pack(directory, name, out, rename)
    except BrokenPipeError as error:
        raise KernelError("nobody reads the archive", errno.EPIPE) from error
    except OSError as error:
        raise WherryError(f"{failure}: {error.strerror}") from error


def pack_contents(directories: Mapping[str, int], out: BinaryIO) -> None:
    """Write what open directories hold to `out`, each by the name that it has in the archive."""
    import tarfile

    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name, directory in directories.items():
            _Packer(archive).entry(directory, ".", name)


class _Packer:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self.archive = archive
        self.linked: dict[tuple[int, int], str] = {}

    def entry(self, directory: int, name: str, path: str) -> None:
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                self.directory(directory, name, path)
            elif stat.S_ISREG(found.st_mode):
                self.file(directory, name, path)
            elif not stat.S_ISSOCK(found.st_mode):
                self.other(directory, name, path, found)
        except OSError as error:
            # It was there a moment ago, or was another kind of file then.
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
                raise

    def directory(self, parent: int, name: str, path: str) -> None:
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            found = os.fstat(descriptor)
            entry = _describe(path, found, descriptor)
            entry.type = b"5"
            self.archive.addfile(entry)
            for child in sorted(os.listdir(descriptor)):
                self.entry(descriptor, child, f"{path}/{child}")
        finally:
            os.close(descriptor)

    def file(self, directory: int, name: str, path: str) -> None:
        descriptor = open_file(name, directory)
        with open(descriptor, "rb", buffering=0) as reader:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return
            entry = _describe(path, found, descriptor)
            key = (found.st_dev, found.st_ino)
            if key in self.linked:
                entry.type, entry.linkname = b"1", self.linked[key]
                self.archive.addfile(entry)
                return
            if found.st_nlink > 1:
                self.linked[key] = path
            entry.size = found.st_size
            self.archive.addfile(entry, _Exactly(reader))  # type: ignore[arg-type]

    def other(self, directory: int, name: str, path: str, found: os.stat_result) -> None:
        if sys.platform == "win32":
            raise Unsupported("archives are packed on POSIX systems only")
        entry = _describe(path, found, None)
        if stat.S_ISLNK(found.st_mode):
            entry.type = b"2"
            entry.linkname = os.readlink(name, dir_fd=directory)
        elif stat.S_ISFIFO(found.st_mode):
            entry.type = b"6"
        else:
            entry.type = b"3" if stat.S_ISCHR(found.st_mode) else b"4"
            entry.devmajor, entry.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
        self.archive.addfile(entry)


class _Exactly:
    """A file that becomes shorter while it is read: what is missing is zeros."""

    def __init__(self, reader: BinaryIO) -> None:
        self.reader = reader

    def read(self, size: int) -> bytes:
        content = self.reader.read(size)
        while len(content) < size:
            more = self.reader.read(size - len(content))
            content += more or bytes(size - len(content))
        return content


def _describe(path: str, found: os.stat_result, descriptor: int | None) -> tarfile.TarInfo:
    import tarfile

    entry = tarfile.TarInfo(path)
    entry.mode = stat.S_IMODE(found.st_mode)
    entry.uid, entry.gid = found.st_uid, found.st_gid
    entry.mtime = found.st_mtime
    if sys.platform == "linux" and descriptor is not None:
        entry.pax_headers = {
            _XATTR + name: content.decode("utf-8", "surrogateescape")
            for name, content in attributes(descriptor).items()
        }
    return entry


def attributes(file: int | str) -> dict[str, bytes]:
    """What travels with a file: its user's notes and its capabilities. Raises OSError."""
    if sys.platform != "linux":
        return {}
    return {name: os.getxattr(file, name) for name in attribute_names(file)}


def attribute_names(file: int | str) -> list[str]:
    """The names of what travels with a file; none where that cannot be told."""
    if sys.platform != "linux":
        return []
    try:
        names = os.listxattr(file)
    except OSError:
        return []
    return [
        name
        for name in names
        if name == _CAPABILITY
        or (name.startswith("user.") and not name.startswith("user.overlay."))
    ]


# ---- from tar to files ----


def unpack(
    source: BinaryIO,
    open_directory: Callable[[str], int],
    *,
    keep_ids: bool,
    keep_rights: bool = True,
) -> Sequence[str]:
    """Make the files of the tar stream `source`; the paths of the devices that are left out.

    `open_directory` gives a descriptor of a directory, by its path below the place where
    the files go, and makes it if it is missing. `keep_ids` gives files the archive's
    owners; otherwise they are this process's, and without `keep_rights` programs are no
    longer setuid, setgid or capable of anything then, and devices are none: what is dead in
    an image would be the host's own here.
    """
    import tarfile

    try:
        with tarfile.open(fileobj=source, mode="r|*") as archive:
            unpacker = _Unpacker(archive, open_directory, keep_ids, keep_rights)
            unpacker.all()
    except tarfile.TarError as error:
        raise CorruptState(f"cannot read the tar archive: {error}") from error
    # Whoever writes it must not be stopped before its end.
    while source.read(_CHUNK):
        pass
    return unpacker.left_out


class _Unpacker:
    def __init__(
        self,
        archive: tarfile.TarFile,
        open_directory: Callable[[str], int],
        keep_ids: bool,
        keep_rights: bool,
    ) -> None:
        self.archive = archive
        self.open_directory = open_directory
        self.keep_ids = keep_ids
        self.keep_rights = keep_rights
        self.directories: list[tuple[str, tarfile.TarInfo]] = []
        self.left_out: list[str] = []

    def all(self) -> None:
        for entry in self.archive:
            path = _clean(entry.name)
            try:
                self.one(entry, path)
            except OSError as error:
                raise WherryError(
                    f"cannot write {entry.name}: {error.strerror}", hint=_hint(error)
                ) from error
        # Last of all: a directory may forbid what is put into it, and its time tells of it.
        for path, entry in reversed(self.directories):
            descriptor = self.open_directory(path)
            try:
                self.finish(descriptor, entry)
            finally:
                os.close(descriptor)

    def one(self, entry: tarfile.TarInfo, path: str) -> None:
        if not path:
            return  # the place itself, which is there
        parent_path, _, name = path.rpartition("/")
        parent = self.open_directory(parent_path)
        try:
            if entry.isdir():
                self.make_directory(parent, name, path)
                self.directories.append((path, entry))
            else:
                self.make(parent, name, entry)
        finally:
            os.close(parent)

    def make_directory(self, parent: int, name: str, path: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode) and not stat.S_ISLNK(found.st_mode):
                raise UsageError(
                    f'cannot overwrite non-directory "{path}" with directory "{path}"'
                ) from None

    def make(self, parent: int, name: str, entry: tarfile.TarInfo) -> None:
        if sys.platform == "win32":
            raise Unsupported("archives are unpacked on POSIX systems only")
        in_place = not self.clear(parent, name)
        if entry.isreg():
            self.make_file(parent, name, entry, in_place)
            return
        if in_place:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        if entry.issym():
            os.symlink(entry.linkname, name, dir_fd=parent)
        elif entry.islnk():
            self.make_link(parent, name, entry)
            return
        elif entry.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
        elif (entry.ischr() or entry.isblk()) and not self.keep_rights:
            self.left_out.append(entry.name)
            return
        elif entry.ischr() or entry.isblk():
            kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
            device = os.makedev(entry.devmajor, entry.devminor)
            os.mknod(name, kind | 0o600, device, dir_fd=parent)
        else:
            return  # a kind that only other systems know
        mode = self.own(name, entry, parent)
        if not entry.issym():
            change_mode(name, mode, parent)

    def clear(self, parent: int, name: str) -> bool:
        """Take away what has this name; False where something is mounted on it."""
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except (IsADirectoryError, PermissionError) as error:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                raise
            raise UsageError(
                f'cannot overwrite directory "{name}" with non-directory "{name}"'
            ) from error
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True

    def make_file(self, parent: int, name: str, entry: tarfile.TarInfo, in_place: bool) -> None:
        how = os.O_TRUNC if in_place else os.O_CREAT | os.O_EXCL
        flags = os.O_WRONLY | how | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            content = self.archive.extractfile(entry)
            while content is not None and (chunk := content.read(_CHUNK)):
                _write(descriptor, chunk)
            os.ftruncate(descriptor, entry.size)  # it may end with a hole
            self.finish(descriptor, entry)
        finally:
            os.close(descriptor)

    def make_link(self, parent: int, name: str, entry: tarfile.TarInfo) -> None:
        target_path, _, target = _clean(entry.linkname).rpartition("/")
        directory = self.open_directory(target_path)
        try:
            os.link(target, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(directory)

    def own(self, path: str | int, entry: tarfile.TarInfo, parent: int | None = None) -> int:
        """Give the file its owner; the mode that it may have then."""
        mode = entry.mode & 0o7777
        # What runs as its owner is not to run as another one.
        without = mode & ~(stat.S_ISUID | stat.S_ISGID)
        if sys.platform == "win32" or not self.keep_ids:
            return mode if self.keep_rights else without
        try:
            os.chown(path, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=parent is None)
        except PermissionError:
            # Who is not root gives no files away, as with `cp -a`.
            if os.geteuid() == 0:
                raise
            return without
        return mode

    def finish(self, descriptor: int, entry: tarfile.TarInfo) -> None:
        if sys.platform == "win32":
            raise Unsupported("archives are unpacked on POSIX systems only")
        os.fchmod(descriptor, self.own(descriptor, entry))
        # The archive's whole seconds and fraction come as a float.
        os.utime(descriptor, (entry.mtime, entry.mtime))
        if sys.platform != "linux":
            return
        for key, content in entry.pax_headers.items():
            if key.startswith(_XATTR):
                name = key.removeprefix(_XATTR)
                if name == _CAPABILITY and not (self.keep_ids or self.keep_rights):
                    continue
                try:
                    os.setxattr(descriptor, name, content.encode("utf-8", "surrogateescape"))
                except OSError:
                    pass  # not ours to give, or unknown to this file system


def _write(descriptor: int, chunk: bytes) -> None:
    """Write all of `chunk`; nothing but zeros become a hole."""
    if chunk == _ZEROS:
        os.lseek(descriptor, len(chunk), os.SEEK_CUR)
        return
    write_all(descriptor, chunk)


def _clean(name: str) -> str:
    """A path of an archive without `.`, relative to where it is unpacked. Raises UsageError."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f'the archive has a path that leads out of it: "{name}"')
    return "/".join(parts)


def _hint(error: OSError) -> str | None:
    if error.errno == errno.EPERM:
        return "an unprivileged user makes no device nodes and gives no files away"
    if error.errno == errno.EINVAL:
        return "the owner's id may be one that this user has no mapping for"
    return None


def open_below(top: int, path: str) -> int:
    """A descriptor of the directory `path` below `top`, through no symbolic link.

    What is missing is made; a link on the way is replaced with a directory. The caller
    owns the descriptor.
    """
    descriptor = os.dup(top)
    for part in filter(None, path.split("/")):
        try:
            inner = _enter(descriptor, part)
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def _enter(directory: int, name: str) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        if not stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise
        os.unlink(name, dir_fd=directory)
    os.mkdir(name, 0o755, dir_fd=directory)
    return os.open(name, _DIRECTORY, dir_fd=directory)
