"""Watching directories on Linux: inotify(7), a watch for each directory."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import sys
import threading

from wherry_vm.shares.watching import MOST_DIRECTORIES, Change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry_vm.shares.watching import Tell

assert sys.platform == "linux"

_MODIFY, _ATTRIB, _MOVED_FROM, _MOVED_TO = 0x2, 0x4, 0x40, 0x80
_CREATE, _DELETE = 0x100, 0x200
_ONLYDIR, _DONT_FOLLOW, _EXCL_UNLINK = 0x01000000, 0x02000000, 0x04000000
_IGNORED, _IS_DIRECTORY = 0x8000, 0x40000000
# Not IN_CLOSE_WRITE: a file that the guest opens, to wake who watches it, is not changed.
_MASK = (
    _MODIFY | _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
    | _ONLYDIR | _DONT_FOLLOW | _EXCL_UNLINK
)  # fmt: skip
_KINDS = {
    _MODIFY: "modified",
    _ATTRIB: "attributes",
    _MOVED_FROM: "deleted",
    _MOVED_TO: "created",
    _CREATE: "created",
    _DELETE: "deleted",
}
_EVENT = struct.Struct("iIII")
_GATHER = 0.02
"""Seconds in which what changes is told together: an editor saves in several steps."""

_libc = ctypes.CDLL(None, use_errno=True)


class InotifyWatcher:
    """See `wherry_vm.shares.watching.Watcher`."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._inotify = _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._directories: set[str] = set()
        self._paths: dict[int, str] = {}
        self._ends = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="watch")
        self._thread.start()

    def watch(self, directories: set[str]) -> None:
        with self._lock:
            gone = self._directories - directories
            new = directories - self._directories
            self._directories = set(directories)
            for number, path in list(self._paths.items()):
                if any(_holds(each, path) for each in gone) and not any(
                    _holds(each, path) for each in directories
                ):
                    _libc.inotify_rm_watch(self._inotify, number)
                    self._paths.pop(number, None)
            for each in sorted(new):
                for _ in self._add(each):
                    pass

    def settle(self) -> None:
        self._deliver(gather=False)

    def close(self) -> None:
        self._ends = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._inotify)
        os.close(self._wake)

    def _add(self, directory: str) -> Iterator[Change]:
        """Watch a directory and those below; what is found there."""
        pending = [directory]
        while pending and len(self._paths) < MOST_DIRECTORIES:
            here = pending.pop()
            number = _libc.inotify_add_watch(
                self._inotify, os.fsencode(here), ctypes.c_uint32(_MASK)
            )
            if number < 0:
                continue  # it is gone, is not ours to read, or there are too many
            self._paths[number] = here
            try:
                with os.scandir(here) as entries:
                    for entry in entries:
                        is_directory = entry.is_dir(follow_symlinks=False)
                        if is_directory:
                            pending.append(entry.path)
                        yield Change(entry.path, "created", is_directory)
            except OSError:
                continue

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._inotify, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not self._ends:
            poll.poll()
            if not self._ends:
                self._deliver(gather=True)

    def _deliver(self, *, gather: bool) -> None:
        """Tell what there is to read, and what follows at once."""
        with self._read_lock:
            changes: list[Change] = []
            poll = select.poll()
            poll.register(self._inotify, select.POLLIN)
            while poll.poll(_GATHER * 1000 if gather and changes else 0):
                changes += self._read()
                if len(changes) > MOST_DIRECTORIES:
                    break
            if changes:
                self._tell(changes)

    def _read(self) -> list[Change]:
        try:
            data = os.read(self._inotify, 1 << 16)
        except BlockingIOError:
            return []
        changes = []
        offset = 0
        with self._lock:
            while offset < len(data):
                number, mask, _, size = _EVENT.unpack_from(data, offset)
                name = data[offset + _EVENT.size : offset + _EVENT.size + size].rstrip(b"\0")
                offset += _EVENT.size + size
                changes += self._changes(number, mask, os.fsdecode(name))
        return changes

    def _changes(self, number: int, mask: int, name: str) -> list[Change]:
        if mask & _IGNORED:
            self._paths.pop(number, None)
            return []
        parent = self._paths.get(number)
        if parent is None or not name:
            return []
        path = f"{parent}/{name}"
        is_directory = bool(mask & _IS_DIRECTORY)
        changes = [Change(path, kind, is_directory) for bit, kind in _KINDS.items() if mask & bit]
        if is_directory and mask & (_CREATE | _MOVED_TO):
            changes += self._add(path)
        elif is_directory and mask & _MOVED_FROM:
            for each, below in list(self._paths.items()):
                if _holds(path, below):
                    _libc.inotify_rm_watch(self._inotify, each)
                    self._paths.pop(each, None)
        return changes


def _holds(directory: str, path: str) -> bool:
    return path == directory or path.startswith(directory + "/")


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
