"""A monitor's event loop: descriptors, timers, and the ends of children, in one thread."""

from __future__ import annotations

import os
import select
import time

from wherry.lean import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Loop:
    """What a monitor waits for."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.handlers: dict[int, Callable[[int], None]] = {}
        self.timers: list[tuple[float, Callable[[], None]]] = []
        # Children that have ended and were asked after by nobody yet.
        self._statuses: dict[int, int] = {}
        self._wakeup = (-1, -1)
        # Somebody wants this process to end, who may be shutting the host down.
        self.is_told_to_end = False

    def prepare(self) -> None:
        """Make this process deaf to the signals of a terminal, and hear of children's ends."""
        signals.set_wakeup_fd(-1)
        for number in range(1, signals.NSIG):
            if number not in (signals.SIGKILL, signals.SIGSTOP, signals.SIGPIPE, 32, 33):
                try:
                    signals.signal(number, signals.SIG_DFL)
                except (OSError, ValueError):
                    continue
        # Handlers, since what is ignored would stay ignored in the container. The last is
        # for a log that the caller's limits do not let grow.
        deaf = (
            signals.SIGINT, signals.SIGHUP, signals.SIGQUIT, signals.SIGXFSZ,
        )  # fmt: skip
        for number in (*deaf, signals.SIGCHLD):
            signals.signal(number, _do_nothing)
        signals.signal(signals.SIGTERM, self._hear_of_end)
        read, write = self._wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signals.set_wakeup_fd(write, warn_on_full_buffer=False)
        self.watch(read, select.EPOLLIN, self._reap)
        _name_process("wherry-monitor")

    def turn(self) -> None:
        """Wait until something happens, and see to it."""
        timeout = -1.0
        if self.timers:
            timeout = max(0.0, self.timers[0][0] - time.monotonic())
        for descriptor, mask in self.poll.poll(timeout):
            handler = self.handlers.get(descriptor)
            if handler is not None:
                handler(mask)
        while self.timers and self.timers[0][0] <= time.monotonic():
            self.timers.pop(0)[1]()

    def watch(self, descriptor: int, mask: int, handler: Callable[[int], None]) -> None:
        """Call `handler(mask)` when something happens on `descriptor`."""
        if descriptor in self.handlers:
            self.poll.modify(descriptor, mask)
        else:
            self.poll.register(descriptor, mask)
        self.handlers[descriptor] = handler

    def unwatch(self, descriptor: int) -> None:
        if self.handlers.pop(descriptor, None) is not None:
            self.poll.unregister(descriptor)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` once, later."""
        self.timers.append((time.monotonic() + seconds, action))
        self.timers.sort(key=lambda timer: timer[0])

    def cancel(self, action: Callable[[], None]) -> None:
        self.timers = [timer for timer in self.timers if timer[1] != action]

    def awaits(self, pid: int) -> bool:
        """Whether somebody is going to ask for the exit code of this child."""
        raise NotImplementedError

    def _reap(self, _mask: int) -> None:
        """Children have ended: the container, a check, or what either left to us."""
        try:
            while os.read(self._wakeup[0], 512):
                pass
        except BlockingIOError:
            pass
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if self.awaits(ended[0]):
                    self._statuses[ended[0]] = ended[1]
        except ChildProcessError:
            pass

    def _hear_of_end(self, _number: int, _where: object) -> None:
        self.is_told_to_end = True

    def exit_code_of(self, pid: int) -> int:
        """Wait for a child of ours; its exit code, -n for signal n."""
        status = self._statuses.pop(pid, None)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1] if status is None else status)


def _name_process(name: str) -> None:
    """What ps(1) calls this process: at most 15 bytes."""
    with open("/proc/self/comm", "wb", buffering=0) as file:
        file.write(name.encode())


def _do_nothing(number: int, where: object) -> None:
    """A handler, which a new program does not inherit."""
