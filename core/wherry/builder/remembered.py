"""What large files hold, remembered by what stat(2) says of them.

    DATA/build-cache/digests   {"DEVICE:INODE:SIZE:MTIME:CTIME": digest}, the newest last

A change moves the time of a file's status (ctime), which nobody sets. It does not where it
comes within the clock's tick of the last one: so a file is remembered only once it has been
left alone for a while. File systems with whole seconds, many of which make that time up, are
not believed at all.
"""

from __future__ import annotations

import os
import time

from wherry import paths
from wherry.builder.contents import content_digest
from wherry.errors import CorruptState
from wherry.files import make_dir, read_json, write_json
from wherry.shapes import TEXTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LARGE = 1 << 20
"""The size from which on a file is worth it."""

# How many files are remembered.
_MOST = 1000
_SECOND = 1_000_000_000
_WHILE = 2 * _SECOND


class Remembered:
    """The digests of what files hold; of large ones `save` keeps what is new."""

    def __init__(self, read: Callable[[int], str] = content_digest) -> None:
        self._read = read
        self._path = f"{paths.build_cache()}/digests"
        self._known: dict[str, str] | None = None
        self._has_news = False

    def digest(self, descriptor: int, /) -> str:
        """The digest of an open file: the one that it had, or what is read now."""
        began = time.time_ns()
        before = os.fstat(descriptor)
        if before.st_size < LARGE:
            return self._read(descriptor)
        known = self._load()
        key = _key(before)
        found = known.pop(key, "")
        if not found:
            found = self._read(descriptor)
            if not _is_settled(before, began) or _key(os.fstat(descriptor)) != key:
                return found
            self._has_news = True
        known[key] = found
        return found

    def known(self, descriptor: int, /) -> str:
        """The digest that an open file had, if it is what it was then; "" otherwise."""
        return self._load().get(_key(os.fstat(descriptor)), "")

    def _load(self) -> dict[str, str]:
        if self._known is None:
            try:
                self._known = read_json(self._path, TEXTS)
            except (FileNotFoundError, CorruptState):
                self._known = {}
        return self._known

    def save(self) -> None:
        """Of two that save at once one is forgotten, which only takes time."""
        if self._known is None or not self._has_news:
            return
        make_dir(paths.build_cache())
        write_json(self._path, dict(list(self._known.items())[-_MOST:]))
        self._has_news = False


def _key(status: os.stat_result) -> str:
    times = f"{status.st_mtime_ns}:{status.st_ctime_ns}"
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{times}"


def _is_settled(status: os.stat_result, now: int) -> bool:
    changed = status.st_ctime_ns
    return changed < now - _WHILE and changed % _SECOND != 0
