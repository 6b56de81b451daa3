"""COPY and ADD as the changes of a layer: no file is written before the layer is.

What is below is looked at only to know where a path leads: through which links, and
which of its directories there are.
"""

from __future__ import annotations

import os
import posixpath
import stat
import time

from wherry.builder.tree import DIRECTORY, open_below
from wherry.errors import KernelError, UsageError
from wherry.image.difference import ADDED, MODIFIED, Change
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from wherry.builder.tree import Tree
    from wherry.runtime import Runtime

    Mode = Callable[[int], int]

_FILE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
# A link and not what it leads to.
_ITSELF = getattr(os, "O_PATH", 0) | getattr(os, "O_NOFOLLOW", 0)
# The kernel's own bound.
_MOST_LINKS = 40


@value
class Placement:
    """Where copies go and what they become."""

    # Absolute; with a slash at the end where it says that it is a directory.
    target: str
    # None keeps owners.
    owner: tuple[int, int] | None = (0, 0)
    # What a mode becomes; None keeps it.
    mode: Mode | None = None
    # Where directories that are made get their time from, in nanoseconds; None for now.
    moment: int | None = None
    # `--parents`: the directories of a source come along.
    parents: bool = False
    # Whether there is more than one source: no file may stand for all of them.
    several: bool = False


class Base:
    """The tree that is copied into, as it is below the new layer."""

    def __init__(self, runtime: Runtime, root: int) -> None:
        self._runtime = runtime
        self.root = root
        # The directories that the layer has already.
        self.told: set[str] = set()

    def open(self, path: str) -> int:
        """A directory, to look at; -1 where there is none. Raises UsageError for a file."""
        try:
            return self._runtime.open_in_root(self.root, path or ".", flags=DIRECTORY)
        except KernelError:
            pass
        try:
            os.close(self._runtime.open_in_root(self.root, path))
        except KernelError:
            return -1
        raise UsageError(f"cannot copy to non-directory: /{path}")

    def read(self, path: str) -> str:
        """The text of a file; "" where there is none."""
        try:
            descriptor = self._runtime.open_in_root(self.root, path, flags=_FILE)
        except KernelError:
            return ""
        with open(descriptor, encoding="utf-8", errors="replace") as file:
            return file.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else ""

    def real(self, path: str) -> str:
        """Where a path leads through links, be it there or not. Raises UsageError for a loop."""
        real, followed = "", 0
        names = path.split("/")
        while names:
            name = names.pop(0)
            if name == "..":
                real = posixpath.dirname(real)
            elif name not in ("", "."):
                link = self._link(posixpath.join(real, name))
                followed += bool(link)
                if followed > _MOST_LINKS:
                    raise UsageError(f"too many levels of symbolic links: /{path}")
                names = [*link.split("/"), *names]
                if link.startswith("/"):
                    real = ""
                elif not link:
                    real = posixpath.join(real, name)
        return real

    def _link(self, path: str) -> str:
        """What a symbolic link says; "" for all else, and for nothing."""
        if path in self.told:
            return ""
        try:
            descriptor = self._runtime.open_in_root(self.root, path, flags=_ITSELF)
        except KernelError:
            return ""
        try:
            is_link = stat.S_ISLNK(os.fstat(descriptor).st_mode)
            return os.readlink("", dir_fd=descriptor) if is_link else ""
        finally:
            os.close(descriptor)

    def way(self, path: str, placement: Placement) -> Generator[Change, None, str]:
        """The directories down to `path`, made where they are missing; returns its real path."""
        real = self.real(path)
        for end in (*(n for n, mark in enumerate(real) if mark == "/"), len(real)):
            yield from self._directory(real[:end], placement)
        return real

    def _directory(self, path: str, placement: Placement) -> Iterator[Change]:
        if path in self.told or not path:
            return
        descriptor = self.open(path)
        if descriptor < 0:
            yield from self._made(path, placement)
            return
        try:
            yield from self.tell(path, descriptor)
        finally:
            os.close(descriptor)

    def tell(self, path: str, descriptor: int) -> Iterator[Change]:
        self.told.add(path)
        yield Change(MODIFIED, path, os.fstat(descriptor), descriptor, ".", on_way=True)

    def _made(self, path: str, placement: Placement) -> Iterator[Change]:
        self.told.add(path)
        moment = time.time_ns() if placement.moment is None else placement.moment
        uid, gid = placement.owner or (0, 0)
        found = status_of(stat.S_IFDIR | 0o755, uid, gid, moment)
        yield Change(ADDED, path, found, -1, ".", on_way=True)


def status_of(
    mode: int, uid: int, gid: int, mtime_ns: int, *, like: os.stat_result | None = None
) -> os.stat_result:
    """A status as stat(2) tells it: of `like`, if there is one."""
    fields = [0] * 10 if like is None else list(like)[:10]
    fields[0], fields[4], fields[5], fields[8] = mode, uid, gid, mtime_ns // 1_000_000_000
    return os.stat_result(
        fields, {"st_mtime_ns": mtime_ns, "st_rdev": 0 if like is None else _device(like)}
    )


def _device(status: os.stat_result) -> int:
    return int(getattr(status, "st_rdev", 0))


def missing_directory(base: Base, path: str, placement: Placement) -> Iterator[Change]:
    """What WORKDIR makes: the directory and what is missing above it; nothing if it is there."""
    path = base.real(path)
    descriptor = base.open(path)
    if descriptor >= 0:
        os.close(descriptor)
        return
    yield from base.way(path, placement)


def copy_changes(
    base: Base, tree: Tree, selected: Sequence[tuple[str, str]], placement: Placement
) -> Iterator[Change]:
    """The changes that copy what is `selected` of `tree` to where `placement` says."""
    copier = _Copier(base, tree, placement)
    for called, path in selected:
        yield from copier.source(called, path)


class _Copier:
    def __init__(self, base: Base, tree: Tree, placement: Placement) -> None:
        self._base = base
        self._tree = tree
        self._placement = placement

    def source(self, called: str, path: str) -> Iterator[Change]:
        parent, name = self._tree.open_parent(path)
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            target = self._placement.target.strip("/")
            if self._placement.parents and called:
                above = posixpath.join(target, posixpath.dirname(called))
                yield from self._into(above, parent, name, called, path, status)
            elif stat.S_ISDIR(status.st_mode):
                yield from self._contents(parent, name, path, target)
            elif self._is_directory(target):
                yield from self._into(target, parent, name, called, path, status)
            else:
                yield from self._single(parent, name, target, status)
        finally:
            os.close(parent)

    def _contents(self, parent: int, name: str, path: str, target: str) -> Iterator[Change]:
        """What a source directory holds, into the target."""
        real = yield from self._base.way(target, self._placement)
        there = self._base.open(real)
        descriptor = open_below(name, parent)
        try:
            yield from self._children(descriptor, path, there, real, path)
        finally:
            os.close(descriptor)
            if there >= 0:
                os.close(there)

    def _into(
        self,
        target: str,
        parent: int,
        name: str,
        called: str,
        path: str,
        status: os.stat_result,
    ) -> Iterator[Change]:
        """A source as it is, into the target."""
        real = yield from self._base.way(target, self._placement)
        there = self._base.open(real)
        try:
            into = posixpath.join(real, posixpath.basename(called))
            yield from self._child(parent, name, path, status, there, into, path)
        finally:
            if there >= 0:
                os.close(there)

    def _single(
        self, parent: int, name: str, target: str, status: os.stat_result
    ) -> Iterator[Change]:
        """A source that is no directory, in the target's place."""
        if self._placement.several:
            raise UsageError(
                "with more than one source file the destination must be a directory and end with a"
                f" /: /{target} is none"
            )
        directory, last = posixpath.split(self._base.real(target))
        real = yield from self._base.way(directory, self._placement)
        yield self._change(posixpath.join(real, last), status, parent, name)

    def _is_directory(self, target: str) -> bool:
        """Whether the target is one already, or is said to be one."""
        if self._placement.target.endswith("/"):
            return True
        real = self._base.real(target)
        if real in self._base.told:
            return True
        try:
            descriptor = self._base.open(real)
        except UsageError:
            return False
        if descriptor < 0:
            return False
        os.close(descriptor)
        return True

    def _children(
        self, source: int, path: str, there: int, real: str, top: str
    ) -> Iterator[Change]:
        """What directory `source` holds; `there` is what is at `real` below the layer, or -1."""
        for name, below, status in self._tree.children(source, path, top):
            target = posixpath.join(real, name)
            yield from self._child(source, name, below, status, there, target, top)

    def _child(
        self,
        source: int,
        name: str,
        below: str,
        status: os.stat_result,
        there: int,
        target: str,
        top: str,
    ) -> Iterator[Change]:
        """`name` in directory `source` becomes `target`, in what is `there` below the layer."""
        if not stat.S_ISDIR(status.st_mode):
            self._may_replace(there, target)
            yield self._change(target, status, source, name)
            return
        inner = open_below(name, source)
        inner_there = -1
        try:
            inner_there, target = self._below(there, target)
            if inner_there >= 0:
                yield from self._base.way(posixpath.dirname(target), self._placement)
            self._base.told.add(target)
            yield self._change(target, status, inner, ".")
            yield from self._children(inner, below, inner_there, target, top)
        finally:
            os.close(inner)
            if inner_there >= 0:
                os.close(inner_there)

    def _may_replace(self, there: int, target: str) -> None:
        """Raises UsageError where a directory would have to go for what is none."""
        is_directory = target in self._base.told
        if there >= 0 and not is_directory:
            try:
                name = posixpath.basename(target)
                found = os.stat(name, dir_fd=there, follow_symlinks=False)
            except FileNotFoundError:
                return
            is_directory = stat.S_ISDIR(found.st_mode)
        if is_directory:
            raise UsageError(f"cannot replace a directory with a file: /{target}")

    def _below(self, there: int, target: str) -> tuple[int, str]:
        """The directory that is at `target` already, through links, and its real path."""
        if there < 0:
            return -1, target
        try:
            os.stat(posixpath.basename(target), dir_fd=there, follow_symlinks=False)
        except FileNotFoundError:
            return -1, target
        descriptor = self._base.open(target)
        if descriptor < 0:
            raise UsageError(f"cannot copy to non-directory: /{target}")
        return descriptor, self._base.real(target)

    def _change(self, path: str, status: os.stat_result, parent: int, name: str) -> Change:
        mode = status.st_mode
        if self._placement.mode is not None and not stat.S_ISLNK(mode):
            mode = stat.S_IFMT(mode) | self._placement.mode(mode)
        uid, gid = self._placement.owner or (status.st_uid, status.st_gid)
        found = status_of(mode, uid, gid, status.st_mtime_ns, like=status)
        return Change(ADDED, path, found, parent, name)


def read_mode(text: str) -> Mode:
    """What `--chmod` does with a mode: octal, or symbolic as in chmod(1). Raises UsageError."""
    if text and all(digit in "01234567" for digit in text):
        number = int(text, 8)
        if number > 0o7777:
            raise UsageError(f"invalid chmod parameter: '{text}'. it should be octal string and"
                             " between 0 and 07777")  # fmt: skip
        return lambda _: number
    clauses = [_read_clause(clause, text) for clause in text.split(",")]

    def change(mode: int) -> int:
        for clause in clauses:
            mode = clause(mode)
        return stat.S_IMODE(mode)

    return change


_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
_PERMISSIONS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}


def _read_clause(clause: str, text: str) -> Mode:
    invalid = UsageError(f"invalid chmod parameter: '{text}'")
    split = next((at for at, mark in enumerate(clause) if mark in "+-="), -1)
    if split < 0:
        raise invalid
    who, operator, permissions = clause[:split], clause[split], clause[split + 1 :]
    if not set(who) <= set("ugoa") or not set(permissions) <= set("rwxXst"):
        raise invalid
    chosen = set("ugo") if not who or "a" in who else set(who)
    mask = sum(_WHO[one] for one in chosen)

    def change(mode: int) -> int:
        bits = 0
        for one in permissions:
            if one == "X":
                bits |= 0o111 if stat.S_ISDIR(mode) or mode & 0o111 else 0
            else:
                bits |= _PERMISSIONS[one]
        bits &= mask
        if operator == "+":
            return mode | bits
        if operator == "-":
            return mode & ~bits
        return (mode & ~mask) | bits

    return change
