"""Watching directories where the system tells nothing: by looking at them again and again."""

from __future__ import annotations

import os
import stat
import threading

from wherry_vm.shares.watching import MOST_DIRECTORIES, Change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry_vm.shares.watching import Tell

    Seen = dict[str, tuple[int, int, int, int]]

_INTERVAL = 1.0


class PollingWatcher:
    """See `wherry_vm.shares.watching.Watcher`."""

    def __init__(self, tell: Tell, interval: float = _INTERVAL) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._seen: dict[str, Seen] = {}
        self._ends = threading.Event()
        self._interval = interval
        threading.Thread(target=self._run, daemon=True, name="watch").start()

    def watch(self, directories: set[str]) -> None:
        with self._lock:
            self._seen = {
                each: self._seen[each] if each in self._seen else _look(each)
                for each in directories
            }

    def settle(self) -> None:
        changes: list[Change] = []
        with self._lock:
            for directory, before in self._seen.items():
                after = self._seen[directory] = _look(directory)
                changes += compare(before, after)
        if changes:
            self._tell(changes)

    def close(self) -> None:
        self._ends.set()

    def _run(self) -> None:
        while not self._ends.wait(self._interval):
            self.settle()


def compare(before: Seen, after: Seen) -> list[Change]:
    """What has changed between two looks."""
    changes = []
    for path, seen in after.items():
        old = before.get(path)
        if old is None:
            changes.append(Change(path, "created", stat.S_ISDIR(seen[0])))
        elif old != seen and not stat.S_ISDIR(seen[0]):
            same = old[1:] == seen[1:]
            changes.append(Change(path, "attributes" if same else "modified"))
    changes += [
        Change(path, "deleted", stat.S_ISDIR(seen[0]))
        for path, seen in reversed(before.items())
        if path not in after
    ]
    return changes


def _look(directory: str) -> Seen:
    """Mode, size, time and number of everything in a directory and below."""
    found: Seen = {}
    pending = [directory]
    visited = 0
    while pending and visited < MOST_DIRECTORIES:
        visited += 1
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    found[entry.path] = (
                        status.st_mode,
                        status.st_size,
                        status.st_mtime_ns,
                        entry.inode(),
                    )
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except OSError:
            continue
    return found
