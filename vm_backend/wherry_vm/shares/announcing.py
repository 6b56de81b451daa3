"""A share in which the guest can do again what the host has done.

inotify tells of what goes through the guest's own kernel. So its agent does there what has
happened here (`wherry_vm.guest.news`), and this tree sees that nothing comes of it a second
time. Between `expect` and `done` of a path

    created     it is hidden, so that it can be made once more: as a link to one of the
                share's tokens, names that nobody but the agent knows
    deleted     it seems to be there until it is removed, which removes nothing
    modified    who opens it for writing has opened it when something is written

Nothing that anybody else does in the meantime is lost: a token is never a file, and what is
written is written. What the guest itself has done must never be announced, however late the
host hears of it: a program would not find what it has just made.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import threading
import time

from wherry_vm.shares import sftp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any

    from wherry_vm.shares.tree import OpenFile, Tree

TOKENS = {"file": stat.S_IFREG | 0o600, "directory": stat.S_IFDIR | 0o700, "link": 0o120777}

UNCHANGED = 0xFFFFFFFB
"""A time of modification, in 2106, that the agent sets: it tells, and changes nothing."""

_MOST_OWN, _MOST_MOVED = 16384, 256


class AnnouncingTree:
    """`tree`, see `wherry_vm.shares.tree.Tree`; `token` begins the names of the tokens."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.token = f".wherry-{secrets.token_hex(16)}"
        self._tokens = {f"{self.token}-{each}".encode(): mode for each, mode in TOKENS.items()}
        self._lock = threading.Lock()
        self._expected: dict[bytes, tuple[str, bool]] = {}
        # How the guest left what it has changed, the latest last; before it has, nothing.
        self._own: dict[bytes, tuple[int, ...] | None] = {}
        # The directories that it moved to where they are, and when by the file system's clock.
        self._moved: dict[bytes, tuple[int, int]] = {}

    def expect(self, path: bytes, kind: str, *, is_directory: bool = False) -> None:
        """The agent is about to do `kind` to `path` again: it is as the host has left it."""
        with self._lock:
            self._own.pop(_key(path), None)
            self._expected[_key(path)] = (kind, is_directory)

    def done(self, path: bytes) -> None:
        """The agent has done it, or will not."""
        with self._lock:
            self._expected.pop(_key(path), None)

    def _appear(self, path: bytes) -> None:
        """What was hidden has been made, once more or by who did not see it; what follows is that
        it has changed."""
        with self._lock:
            if self._is(path, "created"):
                self._expected[_key(path)] = ("modified", False)

    def _vanish(self, path: bytes) -> bool:
        """Whether the path only seemed to be there, which it does no more: who looks for it now
        would have it seem to be there for longer than the telling takes."""
        with self._lock:
            seemed = self._is(path, "deleted") or self._is(path, "gone")
            if seemed:
                self._expected[_key(path)] = ("gone", False)
        return seemed

    def is_own(self, path: bytes) -> bool:
        """Whether the guest itself has changed a path last, and it is as the guest left it."""
        key = _key(path)
        if key in self._own:
            left = self._own[key]
            # The guest may go on changing it while it is looked at.
            if left in (None, self._state(path)) or self._own.get(key) != left:
                return True
        while key := key.rpartition(b"/")[0]:
            # The first is so while the guest moves it.
            if self._own.get(key, ()) is None or self._came_along(path, key):
                return True
        return False

    def _came_along(self, path: bytes, directory: bytes) -> bool:
        """Whether a path was in a directory already when the guest moved it."""
        number, since = self._moved.get(directory, (0, 0))
        if not since:
            return False
        try:
            is_there = self._tree.status(directory).st_ino == number
            return is_there and self._tree.status(path).st_ctime_ns <= since
        except OSError:
            return False

    def _is(self, path: bytes, kind: str) -> bool:
        expected = self._expected.get(_key(path))
        return expected is not None and expected[0] == kind

    def _keep(self, path: bytes, state: tuple[int, ...] | None) -> None:
        """How the guest leaves a path: what happens to it from here on is the host's doing."""
        with self._lock:
            _put(self._own, _key(path), state, _MOST_OWN)

    def _renew(self, path: bytes) -> None:
        """The guest is done with what it has changed: the kernel tells of that, too, and late."""
        self._keep(path, self._own.get(_key(path)) or self._state(path))

    @contextlib.contextmanager
    def _changing(self, *paths: bytes) -> Iterator[None]:
        for path in paths:
            self._keep(path, None)
        try:
            yield
        finally:
            for path in paths:
                self._keep(path, state := self._state(path))
                if state:
                    self._appear(path)

    def _state(self, path: bytes) -> tuple[int, ...]:
        try:
            status = self._tree.status(path)
        except OSError:
            return ()
        if stat.S_ISDIR(status.st_mode):
            # What is made in it is no change of its own.
            return (status.st_ino, status.st_mode, status.st_uid, status.st_gid)
        owner = (status.st_uid, status.st_gid)
        return (status.st_ino, status.st_mode, *owner, status.st_size, status.st_mtime_ns)

    def _keep_moved(self, path: bytes) -> None:
        """What is in a directory has come with it: whoever watches finds it there as if made."""
        try:
            status = self._tree.status(path)
            now = self._tree.status(_key(path).rpartition(b"/")[0]).st_mtime_ns
        except OSError:
            return
        if stat.S_ISDIR(status.st_mode):
            with self._lock:
                _put(self._moved, _key(path), (status.st_ino, now), _MOST_MOVED)

    # ---- what is different while something is announced ----

    def attributes(self, path: bytes) -> bytes:
        if _key(path) in self._tokens:
            return _made_up(self._tokens[_key(path)])
        if self._is(path, "created"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        try:
            return self._tree.attributes(path)
        except FileNotFoundError:
            expected = self._expected.get(_key(path))
            if expected is None or expected[0] != "deleted":
                raise
            return _made_up(TOKENS["directory" if expected[1] else "file"])

    def link(self, old: bytes, new: bytes) -> None:
        if _key(old) in self._tokens:
            self._appear(new)
            return
        with self._changing(new):
            self._tree.link(old, new)

    def rename(self, old: bytes, new: bytes, *, replace: bool) -> None:
        if _key(old) in self._tokens:
            self._appear(new)
            return
        with self._changing(old, new):
            self._tree.rename(old, new, replace=replace)
            self._keep_moved(new)

    def remove(self, path: bytes) -> None:
        if not self._vanish(path):
            with self._changing(path):
                self._tree.remove(path)

    def remove_directory(self, path: bytes) -> None:
        if not self._vanish(path):
            with self._changing(path):
                self._tree.remove_directory(path)

    def open(self, path: bytes, flags: int, mode: int) -> OpenFile:
        if flags == sftp.OPEN_WRITE and self._is(path, "modified"):
            return _Unopened(self, path)
        if flags & ~sftp.OPEN_READ:
            with self._changing(path):
                return _Written(self, path, self._tree.open(path, flags, mode))
        return self._tree.open(path, flags, mode)

    # ---- what is not ----

    def change(self, path: bytes, wanted: sftp.Attributes) -> None:
        if wanted.times is not None and wanted.times[1] == UNCHANGED:
            self._appear(path)
            return
        with self._changing(path):
            self._tree.change(path, wanted)

    def status(self, path: bytes) -> os.stat_result:
        return self._tree.status(path)

    def entries(self, path: bytes) -> Generator[tuple[bytes, bytes], None, None]:
        return self._tree.entries(path)

    def make_directory(self, path: bytes, mode: int) -> None:
        with self._changing(path):
            self._tree.make_directory(path, mode)

    def symlink(self, target: bytes, path: bytes) -> None:
        with self._changing(path):
            self._tree.symlink(target, path)

    def read_link(self, path: bytes) -> bytes:
        return self._tree.read_link(path)

    def file_system(self) -> tuple[int, ...]:
        return self._tree.file_system()

    def close(self) -> None:
        self._tree.close()


class _Written:
    """A file that the guest may write: its changes are its own."""

    def __init__(self, tree: AnnouncingTree, path: bytes, file: OpenFile) -> None:
        self._tree = tree
        self._path = path
        self._file = file
        self.read = file.read
        self.read_at_once = file.read_at_once
        self.attributes = file.attributes
        self.sync = file.sync

    def write(self, data: bytes, offset: int) -> None:
        with self._tree._changing(self._path):
            self._file.write(data, offset)

    def change(self, wanted: sftp.Attributes) -> None:
        with self._tree._changing(self._path):
            self._file.change(wanted)

    def close(self) -> None:
        self._tree._renew(self._path)
        self._file.close()


class _Unopened:
    """A file that is opened when somebody does something with it.

    One that is open for writing cannot be executed, and the host may be about to.
    """

    def __init__(self, tree: AnnouncingTree, path: bytes) -> None:
        self._tree = tree
        self._path = path
        self._opened: OpenFile | None = None

    @property
    def _file(self) -> OpenFile:
        if self._opened is None:
            file = self._tree._tree.open(self._path, sftp.OPEN_WRITE, 0)
            self._opened = _Written(self._tree, self._path, file)
        return self._opened

    def read(self, size: int, offset: int) -> bytes:
        return self._file.read(size, offset)

    def read_at_once(self, size: int, offset: int, /) -> bytes | None:
        return self._file.read_at_once(size, offset)

    def write(self, data: bytes, offset: int) -> None:
        self._file.write(data, offset)

    def attributes(self) -> bytes:
        return self._tree.attributes(self._path)

    def change(self, wanted: sftp.Attributes) -> None:
        self._file.change(wanted)

    def sync(self) -> None:
        if self._opened is not None:
            self._opened.sync()

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()


def _put(kept: dict[bytes, Any], key: bytes, value: Any, most: int) -> None:
    """Keep a value as the latest, and `most` of them."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]


def _key(path: bytes) -> bytes:
    return path.strip(b"/")


def _made_up(mode: int) -> bytes:
    """The attributes of something that is not there."""
    now = int(time.time())
    return sftp.attributes(os.stat_result((mode, 0, 0, 1, 0, 0, 0, now, now, now)), 0, 0, mode)
