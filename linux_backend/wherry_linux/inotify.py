"""Waiting until a file changes: inotify(7)."""

from __future__ import annotations

import ctypes
import os
import select

from wherry_linux.syscalls import check, libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_IN_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_IN_MODIFY, _IN_MOVED_FROM, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE = 0x2, 0x40, 0x80, 0x100, 0x200
_ANYTHING = _IN_MODIFY | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE


class Watch:
    """The directories of some files, watched: a file that is turned over stays in view."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._descriptor = check(libc.inotify_init1(_IN_NONBLOCK_CLOEXEC), "inotify_init1")
        for directory in {os.path.dirname(path) for path in paths}:
            check(
                libc.inotify_add_watch(
                    self._descriptor, os.fsencode(directory), ctypes.c_uint32(_ANYTHING)
                ),
                f"watch {directory}",
            )
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def fileno(self) -> int:
        return self._descriptor

    def __call__(self, seconds: float) -> bool:
        """Wait; False if nothing changed within `seconds` (-1: for ever)."""
        if not self._poll.poll(-1 if seconds < 0 else seconds * 1000):
            return False
        try:
            while os.read(self._descriptor, 1 << 16):
                pass
        except BlockingIOError:
            pass
        return True

    def __del__(self) -> None:
        os.close(self._descriptor)


def watch(paths: Sequence[str]) -> Callable[[float], bool]:
    """A function that waits until one of `paths` changes."""
    return Watch(paths)
