"""Waiting for what happens elsewhere: always for an event, always with a deadline."""

from __future__ import annotations

import os
import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Deadline:
    """A moment after which waiting is over."""

    def __init__(self, seconds: float, what: str) -> None:
        self._end = time.monotonic() + seconds
        self._seconds = seconds
        self._what = what

    def left(self) -> float:
        """Seconds that are left. Raises TimeoutError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"waited {self._seconds:g} s for {self._what}")
        return left


def wait_readable(descriptor: int, deadline: Deadline) -> None:
    """Wait until `descriptor` has something to read, or has ended."""
    if sys.platform == "win32":
        raise NotImplementedError
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    while not poll.poll(deadline.left() * 1000):
        pass


def wait_gone(pids: Iterable[int], seconds: float = 60) -> None:
    """Wait until processes that are not our children have ended."""
    if sys.platform != "linux":
        raise NotImplementedError
    deadline = Deadline(seconds, "processes to end")
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            wait_readable(descriptor, deadline)
        finally:
            os.close(descriptor)


def children() -> set[int]:
    """The processes that this one's main thread has forked and not waited for; Linux."""
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return set(map(int, path.read_text().split()))


def wait_until(condition: Callable[[], bool], deadline: Deadline) -> None:
    """Wait for what the kernel announces to nobody; looks again every 20 ms."""
    while not condition():
        select.select([], [], [], min(0.02, deadline.left()))
