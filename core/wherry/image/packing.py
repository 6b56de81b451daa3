"""Changes as the members of a tar stream, as image-spec's "Layer Filesystem Changeset" has them.

The same changes make the same bytes: names are sorted, and nothing is written but what
the files are. Times keep their nanoseconds, so that what `make` has built is still built.
"""

from __future__ import annotations

import os
import stat
import sys

from wherry.container.archive import attributes
from wherry.errors import Unsupported, UsageError
from wherry.image import tar
from wherry.image.difference import DELETED
from wherry.image.tar import Member

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from wherry.image.difference import Change

    class Stream(Protocol):
        """What members are appended to."""

        def add(self, member: Member, descriptor: int = -1, *, on_way: bool = False) -> None: ...


_HANDLE = getattr(os, "O_PATH", 0) | getattr(os, "O_NOFOLLOW", 0)
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


class Repeated(Exception):
    """Several files have come to one path, so often each: only the last of them counts."""

    def __init__(self, paths: dict[str, int]) -> None:
        self.paths = paths


class Packer:
    """Changes as the members of a tar stream."""

    def __init__(self, stream: Stream, latest: int | None, repeated: dict[str, int]) -> None:
        """`repeated`: how many files come to a path, where that is more than one."""
        self.count = 0
        self.warnings: list[str] = []
        self._stream = stream
        self._latest = latest
        self._linked: dict[tuple[int, int], str] = {}
        # How many are still to come; only the last one stays.
        self._left = dict(repeated)
        # How many files have come to each path; 0 for a directory.
        self._met: dict[str, int] = {}

    def pack(self, changes: Iterable[Change]) -> None:
        """Raises Repeated, when all changes are known."""
        is_single = True
        for change in changes:
            if change.path.rpartition("/")[2].startswith(_WHITEOUT):
                self.warnings.append(f"/{change.path} is left out: a layer has no such names")
            elif self._left.get(change.path, 1) > 1:
                self._left[change.path] -= 1
            else:
                is_single &= self._is_first(change)
                if is_single:
                    self.count += 1
                    self._add(change)
        if not is_single:
            raise Repeated({path: count for path, count in self._met.items() if count > 1})

    def _is_first(self, change: Change) -> bool:
        """Whether no other file has come to this path. Raises UsageError for a directory."""
        before = self._met.get(change.path)
        is_directory = change.found is not None and stat.S_ISDIR(change.found.st_mode)
        if before is not None and is_directory != (before == 0):
            what = "non-directory" if is_directory else "directory"
            raise UsageError(f"cannot copy to {what}: /{change.path}")
        self._met[change.path] = 0 if is_directory else (before or 0) + 1
        return is_directory or not before

    def _add(self, change: Change) -> None:
        found = change.found
        if change.kind == DELETED or found is None:
            self._mark(change.path, _WHITEOUT + change.name)
        elif stat.S_ISDIR(found.st_mode):
            self._directory(change, found)
        elif stat.S_ISREG(found.st_mode):
            self._file(change, found)
        else:
            self._special(change, found)

    def _mark(self, path: str, name: str) -> None:
        directory, slash, _ = path.rpartition("/")
        self._stream.add(Member(directory + slash + name, mode=0))

    def _directory(self, change: Change, found: os.stat_result) -> None:
        member = self._describe(change.path or ".", tar.DIRECTORY, found)
        member.xattrs = _attributes(change.parent)
        # Where nothing may be younger than `latest` all times count.
        self._stream.add(member, on_way=change.on_way and self._latest is None)
        if change.opaque:
            self._mark(f"{change.path}/", _OPAQUE)

    def _file(self, change: Change, found: os.stat_result) -> None:
        key = (found.st_dev, found.st_ino)
        first = self._linked.get(key)
        if first is not None:
            member = self._describe(change.path, tar.HARD_LINK, found)
            member.linkname = first
            self._stream.add(member)
            return
        descriptor = _open_file(change)
        if descriptor < 0:
            return
        try:
            member = self._describe(change.path, tar.FILE, found)
            member.size = os.fstat(descriptor).st_size
            member.xattrs = _attributes(descriptor)
            self._stream.add(member, descriptor)
        finally:
            os.close(descriptor)
        if found.st_nlink > 1:
            self._linked[key] = change.path

    def _describe(self, path: str, kind: str, found: os.stat_result) -> Member:
        mtime = found.st_mtime_ns
        return Member(
            path,
            kind,
            mode=stat.S_IMODE(found.st_mode),
            uid=found.st_uid,
            gid=found.st_gid,
            mtime_ns=mtime if self._latest is None else min(mtime, self._latest),
        )

    def _special(self, change: Change, found: os.stat_result) -> None:
        if sys.platform == "win32":
            raise Unsupported("overlayfs is on Linux only")
        if stat.S_ISLNK(found.st_mode):
            member = self._describe(change.path, tar.SYMLINK, found)
            member.linkname = os.readlink(change.name, dir_fd=change.parent)
        elif stat.S_ISFIFO(found.st_mode):
            member = self._describe(change.path, tar.FIFO, found)
        else:
            is_block = stat.S_ISBLK(found.st_mode)
            member = self._describe(
                change.path, tar.BLOCK_DEVICE if is_block else tar.CHARACTER, found
            )
            member.major, member.minor = os.major(found.st_rdev), os.minor(found.st_rdev)
        self._stream.add(member)


def _open_file(change: Change) -> int:
    """A descriptor of a file's content; -1 if it is no file any more.

    Opening a device could do something to it: what it is is looked at before.
    """
    handle = os.open(change.name, _HANDLE, dir_fd=change.parent)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return -1
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY)
    finally:
        os.close(handle)


def _attributes(descriptor: int) -> dict[str, bytes]:
    """What travels with a file: its user's notes and its capabilities."""
    if sys.platform != "linux":
        raise Unsupported("overlayfs is on Linux only")
    try:
        return attributes(descriptor)
    except OSError:
        return {}
