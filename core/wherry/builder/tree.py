"""Trees that COPY takes from: what is selected, and the digest of what that is.

Every path is looked up with the tree's root as the root directory, whatever links there
are, and walked by descriptors: neither a context nor an image leads out of itself.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat
from hashlib import sha256
from itertools import takewhile

from wherry.builder.ignore import Ignore, glob_expression
from wherry.builder.remembered import Remembered
from wherry.container.archive import attributes
from wherry.container.copy import open_file
from wherry.errors import KernelError, NotFound, UsageError
from wherry.lean import dump_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wherry.runtime import Runtime

DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_BELOW = DIRECTORY | getattr(os, "O_NOFOLLOW", 0)
_HANDLE = getattr(os, "O_PATH", 0)
_MAGIC = re.compile(r"[*?\[]")
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def is_pattern(path: str) -> bool:
    """Whether a source of COPY stands for what it matches."""
    return _MAGIC.search(path) is not None


def _literal(pattern: str) -> str:
    """The directory that a pattern is about: what stands before the first of its magic names."""
    names = pattern.split("/")
    return "/".join(takewhile(lambda name: not is_pattern(name), names))


class Tree:
    """The files below a directory that is open, without what is excluded."""

    def __init__(
        self,
        runtime: Runtime,
        root: int,
        ignore: Ignore | None = None,
        exclude: Ignore | None = None,
    ) -> None:
        """`ignore` is of all of the tree; `exclude` of each directory that is selected, too."""
        self._runtime = runtime
        self.root = root
        self._ignore = ignore or Ignore(())
        self._exclude = exclude or Ignore(())
        self._prefix = os.readlink(f"/proc/self/fd/{root}").rstrip("/")

    def select(self, patterns: Sequence[str]) -> list[tuple[str, str]]:
        """What the patterns mean: each as it is called, and where that leads. Raises NotFound.

        A pattern may match nothing, if the directory is there that it is about.
        What stands before `/./` in a pattern is no part of what it is called.
        """
        found: dict[str, str] = {}
        for pattern in patterns:
            before, pivot, _ = pattern.partition("/./")
            clean = posixpath.normpath(f"/{pattern}").lstrip("/")
            prefix = posixpath.normpath(f"/{before}").lstrip("/") if pivot else ""
            matches = [clean]
            if is_pattern(clean):
                matches = self._matching(clean)
                if not matches:
                    self._resolve(_literal(clean))
            depth = prefix.count("/") + 1 if prefix else 0
            for path in matches:
                if not self._exclude.excludes(path):
                    found[path] = "/".join(path.split("/")[depth:])
        return [(called, self._resolve(path)) for path, called in found.items()]

    def _matching(self, pattern: str) -> list[str]:
        try:
            expression = re.compile(glob_expression(pattern), re.DOTALL)
        except ValueError as error:
            raise UsageError(str(error)) from error
        is_deep = "**" in pattern
        depth = pattern.count("/")
        found: list[str] = []
        waiting = [""]
        while waiting:
            directory = waiting.pop(0)
            for name, status in self._entries(directory):
                path = posixpath.join(directory, name)
                if expression.fullmatch(path) and not self._ignore.excludes(path):
                    found.append(path)
                elif stat.S_ISDIR(status.st_mode) and (is_deep or path.count("/") < depth):
                    waiting.append(path)
        return sorted(found)

    def _entries(self, directory: str) -> list[tuple[str, os.stat_result]]:
        descriptor = self._open(directory, DIRECTORY)
        try:
            return [
                (name, os.stat(name, dir_fd=descriptor, follow_symlinks=False))
                for name in sorted(os.listdir(descriptor))
            ]
        finally:
            os.close(descriptor)

    def _open(self, path: str, flags: int) -> int:
        return self._runtime.open_in_root(self.root, path or ".", flags=flags)

    def _resolve(self, path: str) -> str:
        """Where `path` leads through links within the tree. Raises NotFound."""
        try:
            descriptor = self._open(path, _HANDLE)
        except KernelError as error:
            if error.errno in _MISSING:
                raise _not_found(path) from error
            raise
        try:
            where = os.readlink(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        resolved = where[len(self._prefix) :].lstrip("/")
        if resolved and self._ignore.excludes(resolved) and not self._ignore.may_hold(resolved):
            raise _not_found(path)
        return resolved

    def is_directory(self, path: str) -> bool:
        """Whether a selected path is one."""
        parent, name = self.open_parent(path)
        try:
            return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        finally:
            os.close(parent)

    def open_parent(self, path: str) -> tuple[int, str]:
        """The directory of a selected path, open, and its name there; "." for the root."""
        directory, name = posixpath.split(path)
        return self._open(directory, DIRECTORY), name or "."

    def children(
        self, descriptor: int, path: str, top: str = ""
    ) -> Iterator[tuple[str, str, os.stat_result]]:
        """Name, path and status of what a directory holds, by name, but what is excluded.

        An excluded directory is among them where an exception may be below it. `top` is the
        directory that was selected.
        """
        for name in sorted(os.listdir(descriptor)):
            below = f"{path}/{name}" if path else name
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISSOCK(status.st_mode) or self._leaves_out(below, top):
                continue
            if self._ignore and self._ignore.excludes(below):
                if not (stat.S_ISDIR(status.st_mode) and self._ignore.may_hold(below)):
                    continue
                if not self._holds_something(descriptor, name, below):
                    continue
            yield name, below, status

    def _leaves_out(self, path: str, top: str) -> bool:
        if not self._exclude:
            return False
        return self._exclude.excludes(path) or self._exclude.excludes(path[len(top) :].lstrip("/"))

    def _holds_something(self, parent: int, name: str, path: str) -> bool:
        descriptor = os.open(name, _BELOW, dir_fd=parent)
        try:
            return any(True for _ in self.children(descriptor, path))
        finally:
            os.close(descriptor)


def open_below(name: str, parent: int) -> int:
    """A directory in `parent`, no link to one."""
    return os.open(name, _BELOW, dir_fd=parent)


def _not_found(path: str) -> NotFound:
    return NotFound(
        f'failed to compute cache key: failed to calculate checksum: "/{path}": not found'
    )


def digest(tree: Tree, selected: Sequence[tuple[str, str]], *, with_owners: bool) -> str:
    """What the selected files are: their names, contents, modes, and owners if they stay."""
    return _Digest(tree, with_owners).of(selected)


class _Digest:
    def __init__(self, tree: Tree, with_owners: bool) -> None:
        self._tree = tree
        self._with_owners = with_owners
        self._total = sha256()
        # What files hold that have more names than one, by device and inode.
        self._known: dict[tuple[int, int], str] = {}
        self._remembered = Remembered()

    def of(self, selected: Sequence[tuple[str, str]]) -> str:
        for called, path in selected:
            parent, name = self._tree.open_parent(path)
            try:
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                self._add(parent, name, path, status, called, path)
            finally:
                os.close(parent)
        self._remembered.save()
        return self._total.hexdigest()

    def _add(
        self, parent: int, name: str, path: str, status: os.stat_result, called: str, top: str
    ) -> None:
        fields: list[object] = [called, status.st_mode]
        if self._with_owners:
            fields += [status.st_uid, status.st_gid]
        if stat.S_ISREG(status.st_mode):
            fields.append(self._content(name, parent, status))
        elif stat.S_ISLNK(status.st_mode):
            fields.append(os.readlink(name, dir_fd=parent))
        self._total.update(dump_json(fields).encode())
        if not stat.S_ISDIR(status.st_mode):
            return
        descriptor = open_below(name, parent)
        try:
            self._total.update(_notes(descriptor).encode())
            for child, below, found in self._tree.children(descriptor, path, top):
                self._add(descriptor, child, below, found, f"{called}/{child}", top)
        finally:
            os.close(descriptor)

    def _content(self, name: str, parent: int, status: os.stat_result) -> str:
        if status.st_nlink == 1:
            return self._read(name, parent)
        key = (status.st_dev, status.st_ino)
        if key not in self._known:
            self._known[key] = self._read(name, parent)
        return self._known[key]

    def _read(self, name: str, parent: int) -> str:
        descriptor = open_file(name, parent)
        try:
            return self._remembered.digest(descriptor) + _notes(descriptor)
        finally:
            os.close(descriptor)


def _notes(descriptor: int) -> str:
    """The extended attributes that travel with a file; "" for none."""
    found = sorted(attributes(descriptor).items())
    return dump_json([[name, content.hex()] for name, content in found]) if found else ""
