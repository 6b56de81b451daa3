"""What a container has changed: its writable layer beside the layers below it.

The writable layer is an overlayfs upper directory as in the container's mount: character
devices 0:0 are removals, `user.overlay.opaque` marks a directory that hides what is below
it (Documentation/filesystems/overlayfs.rst). Both trees are walked by descriptors, so
that a container that still runs can spoil the result, but lead it nowhere else.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from wherry.errors import Unsupported
from wherry.oci import MOUNT_TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# docker's numbers in /containers/ID/changes.
MODIFIED, ADDED, DELETED = 0, 1, 2

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_OPAQUE = "user.overlay.opaque"
_CAPABILITY = "security.capability"
# Two descriptors are open for each level.
_DEEPEST = 400
# It was there a moment ago, or was another kind of file then.
_VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)


class Change:
    """One name that is not what it is below. `parent` is open until the next one is asked for."""

    __slots__ = ("found", "kind", "name", "on_way", "opaque", "parent", "path")

    def __init__(
        self,
        kind: int,
        path: str,
        found: os.stat_result | None,
        parent: int,
        name: str,
        *,
        opaque: bool = False,
        on_way: bool = False,
    ) -> None:
        self.kind = kind
        # Without a slash before it; "" for the root directory.
        self.path = path
        # None for what is deleted.
        self.found = found
        self.parent = parent
        # "." where `parent` is the changed directory itself.
        self.name = name
        # Whether a directory hides everything below it.
        self.opaque = opaque
        # Whether it is a directory that is there only for what is put into it.
        self.on_way = on_way


def changes(
    upper: int,
    lower: int,
    *,
    unwanted: frozenset[str] = frozenset(),
    as_layer: bool = False,
    is_whole: bool = False,
) -> Iterator[Change]:
    """The changes between two open directories, a directory before what it holds, by name.

    A directory that is as it was comes before the first change within. `unwanted` are
    paths that are left out as long as they are empty, where something was mounted, or a link
    to the table of mounts.
    `as_layer` tells of all that an opaque directory holds, as an archive of the layer
    needs it, instead of comparing it with what it hides. `is_whole`: `upper` is no layer,
    but a tree in which nothing of `lower` is seen but what it has itself.
    """
    return _Walk(unwanted, as_layer).root(upper, lower, is_whole)


class _Walk:
    def __init__(self, unwanted: frozenset[str], as_layer: bool) -> None:
        self._unwanted = unwanted
        self._above = frozenset(
            path[:end] for path in unwanted for end, mark in enumerate(path) if mark == "/"
        )
        self._as_layer = as_layer
        # Directories that are as they were, or that hold nothing but what is unwanted
        # so far: told of before the next change, which is within them.
        self._pending: list[Change] = []

    def root(self, upper: int, lower: int, is_whole: bool) -> Iterator[Change]:
        found, below = os.fstat(upper), os.fstat(lower)
        if self._as_layer and _differ(found, below):
            yield Change(MODIFIED, "", found, upper, ".")
        yield from self._directory(upper, lower, "", hides=is_whole, depth=0)

    def _directory(
        self, upper: int, lower: int, path: str, *, hides: bool, depth: int
    ) -> Iterator[Change]:
        """What `upper` holds, beside `lower` (-1 for nothing)."""
        if depth > _DEEPEST:
            raise Unsupported(
                f"/{path[:60]}… lies deeper than {_DEEPEST} directories,"
                " which is more than wherry can compare"
            )
        names = os.listdir(upper)
        gone = set(os.listdir(lower)).difference(names) if hides and lower >= 0 else set()
        for name in sorted((*names, *gone)):
            below = f"{path}/{name}" if path else name
            if name in gone:
                if not self._as_layer:
                    yield from self._tell(Change(DELETED, below, None, upper, name))
                continue
            try:
                found = os.stat(name, dir_fd=upper, follow_symlinks=False)
                yield from self._entry(upper, lower, name, below, found, hides, depth)
            except OSError as error:
                if error.errno not in _VANISHED:
                    raise

    def _entry(
        self,
        upper: int,
        lower: int,
        name: str,
        path: str,
        found: os.stat_result,
        hides: bool,
        depth: int,
    ) -> Iterator[Change]:
        before = _stat(name, lower)
        if stat.S_ISCHR(found.st_mode) and _device(found) == 0:
            if before is not None and not (hides and self._as_layer):
                yield from self._tell(Change(DELETED, path, None, upper, name))
            return
        if stat.S_ISSOCK(found.st_mode):
            return  # it lives no longer than the process behind it
        if before is None and path in self._unwanted and _is_as_made(name, found, upper):
            return
        kind = ADDED if before is None else MODIFIED
        if stat.S_ISDIR(found.st_mode):
            yield from self._subdirectory(upper, lower, name, path, found, before, hides, depth)
        elif (
            before is None
            or (hides and self._as_layer)
            or _differ(found, before)
            or _capability(name, upper, found) != _capability(name, lower, before)
        ):
            yield from self._tell(Change(kind, path, found, upper, name))

    def _subdirectory(
        self,
        upper: int,
        lower: int,
        name: str,
        path: str,
        found: os.stat_result,
        before: os.stat_result | None,
        hides: bool,
        depth: int,
    ) -> Iterator[Change]:
        was_directory = before is not None and stat.S_ISDIR(before.st_mode)
        inner = os.open(name, _DIRECTORY, dir_fd=upper)
        below = os.open(name, _DIRECTORY, dir_fd=lower) if was_directory else -1
        try:
            opaque = _attribute(inner, _OPAQUE) == b"y"
            change = Change(
                ADDED if before is None else MODIFIED,
                path,
                found,
                inner,
                ".",
                opaque=opaque and was_directory and not (hides and self._as_layer),
            )
            is_same = before is not None and not _differ(found, before)
            if (is_same and not (self._as_layer and (opaque or hides))) or (
                before is None and path in self._above
            ):
                self._pending.append(change)
            else:
                yield from self._tell(change)
            yield from self._directory(inner, below, path, hides=hides or opaque, depth=depth + 1)
            if self._pending and self._pending[-1] is change:
                self._pending.pop()
        finally:
            os.close(inner)
            if below >= 0:
                os.close(below)

    def _tell(self, change: Change) -> Iterator[Change]:
        pending, self._pending = self._pending, []
        yield from pending
        yield change


def _stat(name: str, directory: int) -> os.stat_result | None:
    if directory < 0:
        return None
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _differ(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether two files are told apart by what stat(2) says of them, as docker does it.

    A directory's size and time tell nothing: they change with what it holds.
    """
    if (one.st_mode, one.st_uid, one.st_gid, _device(one)) != (
        other.st_mode,
        other.st_uid,
        other.st_gid,
        _device(other),
    ):
        return True
    if stat.S_ISDIR(one.st_mode):
        return False
    return (one.st_size, one.st_mtime_ns) != (other.st_size, other.st_mtime_ns)


def _device(found: os.stat_result) -> int:
    """The number of the device that a file stands for; 0 for none, and for a removal."""
    if sys.platform == "win32":
        raise Unsupported("overlayfs is on Linux only")
    return found.st_rdev


def _capability(name: str, directory: int, found: os.stat_result) -> bytes:
    """A file's capabilities. It is not opened: it might have become a device."""
    if not stat.S_ISREG(found.st_mode):
        return b""
    return _attribute(f"/proc/self/fd/{directory}/{name}", _CAPABILITY)


def _attribute(file: int | str, name: str) -> bytes:
    if sys.platform != "linux":
        raise Unsupported("overlayfs is on Linux only")
    try:
        return os.getxattr(file, name, follow_symlinks=isinstance(file, int))
    except OSError:
        return b""


def _is_as_made(name: str, found: os.stat_result, directory: int) -> bool:
    """Whether it is an empty file or directory, or the link that containers get."""
    if stat.S_ISREG(found.st_mode):
        return found.st_size == 0
    if stat.S_ISLNK(found.st_mode):
        return os.readlink(name, dir_fd=directory) == MOUNT_TABLE
    if not stat.S_ISDIR(found.st_mode):
        return False
    descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        return not os.listdir(descriptor)
    finally:
        os.close(descriptor)
