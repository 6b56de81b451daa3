"""Hear of it when the kernel kills for want of memory (cgroup-v2.rst, memory.events)."""

from __future__ import annotations

import os
import select

from wherry_linux.cgroups import Cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry_linux.loop import Loop

# A group that is full has an event with each page that it asks for.
_PAUSE = 0.1


class MemoryWatch:
    """Counts what the kernel kills in one container's control group."""

    def __init__(self, loop: Loop, killed: Callable[[], None]) -> None:
        """`killed()` is called whenever more have been killed."""
        self._loop = loop
        self._killed = killed
        self._events = -1
        self.kills = 0

    def begin(self, cgroup: str) -> None:
        """Watch the group `cgroup`, where somebody counts its memory."""
        if not cgroup:
            return
        try:
            path = f"{Cgroup(cgroup).directory}/memory.events"
            self._events = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        self._look()

    def end(self) -> None:
        """Count for the last time, and begin anew with the next group."""
        self._loop.cancel(self._look)
        if self._events >= 0:
            self._count()
            self._loop.unwatch(self._events)
            os.close(self._events)
        self._events, self.kills = -1, 0

    def _look(self) -> None:
        self._count()
        self._loop.watch(self._events, select.EPOLLPRI, self._changed)

    def _changed(self, _mask: int) -> None:
        self._loop.unwatch(self._events)
        self._loop.after(_PAUSE, self._look)

    def _count(self) -> None:
        try:
            text = os.pread(self._events, 4096, 0).decode()
        except OSError:
            return  # the group has gone
        for line in text.splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill" and int(count) > self.kills:
                self.kills = int(count)
                self._killed()
