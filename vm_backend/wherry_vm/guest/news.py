"""Does in the guest again what the host has done to its files, so that inotify tells of it.

The kernel tells of what is done through it. Each change becomes the call that tells the
same and changes nothing: the host's server knows which ones it has asked for
(`wherry_vm.shares.announcing`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from queue import SimpleQueue

from wherry_vm.shares.announcing import UNCHANGED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_AT_FDCWD, _AT_SYMLINK_NOFOLLOW = -100, 0x100
_UTIME_OMIT = (1 << 30) - 2

_libc = ctypes.CDLL(None, use_errno=True)


class News:
    """Changes that the host has told of, done one after the other in a thread."""

    def __init__(self, say: Callable[[dict[str, Any]], None]) -> None:
        self._say = say
        self._messages: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True, name="news").start()

    def hear(self, message: Mapping[str, Any]) -> None:
        self._messages.put(message)

    def _run(self) -> None:
        while True:
            message = self._messages.get()
            for change in message["changes"]:
                with contextlib.suppress(OSError):
                    enact(change)
            self._say({"event": "told", "number": message["number"]})


def enact(change: Mapping[str, str]) -> None:
    """Do one change again. Raises OSError where the guest knew of it, or cannot."""
    path, kind, what = change["path"], change["kind"], change["what"]
    if kind == "created":
        if _create(path, what, change["token"]) and what == "directory":
            return
        kind = "modified"
    if kind == "deleted":
        _delete(path)
    elif kind == "attributes":
        _set_times(path, (UNCHANGED, 0))
    elif what == "file":
        _set_times(path, (0, _UTIME_OMIT))
        os.close(os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))


def _create(path: str, what: str, token: str) -> bool:
    """IN_CREATE, or IN_MOVED_TO for a directory; False where the guest has seen it before."""
    try:
        if what == "directory":
            # A directory has no second name, but it can get another.
            if os.path.lexists(path):
                return False
            os.rename(f"{token}-{what}", path)
        else:
            os.link(f"{token}-{what}", path, follow_symlinks=False)
    except FileExistsError:
        return False
    return True


def _delete(path: str) -> None:
    try:
        os.unlink(path)
    except IsADirectoryError:
        os.rmdir(path)


def _set_times(path: str, access: tuple[int, int]) -> None:
    """IN_ATTRIB where both times are set, IN_MODIFY where it is the second alone."""
    times = (ctypes.c_long * 4)(*access, UNCHANGED, 0)
    if _libc.utimensat(_AT_FDCWD, os.fsencode(path), times, _AT_SYMLINK_NOFOLLOW) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
