"""Trees of files as tar streams where there are no directory descriptors: on Windows.

What `wherry.container.archive` is elsewhere. An archive is the container's, and is not
believed: no path of it leads out of the place that it is unpacked in, by way of a link or
of what only Windows takes for a path.
"""

from __future__ import annotations

import os
import stat

from wherry.errors import CorruptState, UsageError, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator
    from typing import BinaryIO

_CHUNK = 1 << 20
_MODE = 0o755
"""Of all files: Windows does not know which are programs."""
MOUNT_POINT = 0xA0000003  # IO_REPARSE_TAG_MOUNT_POINT of winnt.h


def pack(directory: str, name: str, out: BinaryIO, rename: str) -> None:
    """Write `name` in `directory` to `out`, called `rename` in the archive.

    "." as `name` is the directory itself, and as `rename` its contents alone.
    """
    import tarfile

    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for path, called in _walk(os.path.join(directory, name), rename):
            _add(archive, path, called)


def _walk(path: str, called: str) -> Iterator[tuple[str, str]]:
    """A path and what is below it, each with what it is called in the archive."""
    yield path, called
    if os.path.isdir(path) and not _is_link(path):
        for name in sorted(os.listdir(path)):
            yield from _walk(os.path.join(path, name), f"{called}/{name}")


def _add(archive: tarfile.TarFile, path: str, called: str) -> None:
    import tarfile

    found = os.lstat(path)
    entry = tarfile.TarInfo(called)
    entry.mode, entry.mtime = _MODE, found.st_mtime
    if _is_link(path):
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path).replace(os.sep, "/")
    elif stat.S_ISDIR(found.st_mode):
        entry.type = tarfile.DIRTYPE
    elif stat.S_ISREG(found.st_mode):
        entry.size = found.st_size
        with open(path, "rb") as reader:
            archive.addfile(entry, reader)
        return
    else:
        return  # a socket or the like, which no archive holds
    archive.addfile(entry)


def unpack(source: BinaryIO, directory: str) -> None:
    """Make the files of the tar stream `source` in `directory`."""
    import tarfile

    try:
        with tarfile.open(fileobj=source, mode="r|*") as archive:
            for entry in archive:
                _make(archive, entry, directory)
    except tarfile.TarError as error:
        raise CorruptState(f"cannot read the tar archive: {error}") from error
    # Whoever writes it must not be stopped before its end.
    while source.read(_CHUNK):
        pass


def _make(archive: tarfile.TarFile, entry: tarfile.TarInfo, top: str) -> None:
    names = _names(entry.name)
    if not names:
        return  # the place itself, which is there
    try:
        parent = top
        for name in names[:-1]:
            parent = os.path.join(parent, name)
            _make_directory(parent)
        path = os.path.join(parent, names[-1])
        if entry.isdir():
            _make_directory(path, over_files=False)
            return
        _clear(path)
        if entry.issym():
            os.symlink(entry.linkname, path)
        elif entry.islnk():
            os.link(_existing(top, _names(entry.linkname)), path)
        elif entry.isreg():
            with open(path, "xb") as file:
                content = archive.extractfile(entry)
                while content is not None and (chunk := content.read(_CHUNK)):
                    file.write(chunk)
            os.utime(path, (entry.mtime, entry.mtime))
    except OSError as error:
        raise WherryError(f"cannot write {entry.name}: {error.strerror}") from error


def _names(path: str) -> list[str]:
    """The names of a path of an archive. Raises UsageError where one is more than a name here."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    for name in names:
        if name == ".." or "\\" in name or ":" in name:
            raise UsageError(f'the archive has a path that leads out of it: "{path}"')
    return names


def _make_directory(path: str, *, over_files: bool = True) -> None:
    """Make a directory that is none yet; a link in its place leads elsewhere, and goes."""
    if _is_link(path):
        _remove_link(path)
    elif os.path.isdir(path):
        return
    elif os.path.lexists(path) and not over_files:
        name = os.path.basename(path)
        raise UsageError(f'cannot overwrite non-directory "{name}" with directory "{name}"')
    os.mkdir(path)


def _clear(path: str) -> None:
    """Take away what has this name."""
    if _is_link(path):
        _remove_link(path)
    elif os.path.isdir(path):
        name = os.path.basename(path)
        raise UsageError(f'cannot overwrite directory "{name}" with non-directory "{name}"')
    elif os.path.lexists(path):
        os.unlink(path)


def _existing(top: str, names: list[str]) -> str:
    """A file of the archive that is there already. Raises OSError where a link leads to it."""
    path = top
    for name in names:
        path = os.path.join(path, name)
        if _is_link(path):
            raise OSError(0, f"{name} is a link")
    return path


def _is_link(path: str) -> bool:
    """Whether a path leads elsewhere: a symbolic link, or a junction of Windows."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISLNK(status.st_mode) or getattr(status, "st_reparse_tag", 0) == MOUNT_POINT


def _remove_link(path: str) -> None:
    try:
        os.unlink(path)
    except PermissionError:
        os.rmdir(path)  # one to a directory, on Windows
