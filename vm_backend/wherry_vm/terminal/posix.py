"""Terminals and signals of Linux and macOS: termios(3), signal(7)."""

from __future__ import annotations

import _thread
import os
import sys

from wherry.engine.session import NOT_PROXIED
from wherry.lean import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any

assert sys.platform != "win32"


class PosixConsole:
    """Descriptors 0, 1 and 2 of this process, and its signals."""

    def size(self) -> list[int] | None:
        for descriptor in (1, 0, 2):
            try:
                columns, rows = os.get_terminal_size(descriptor)
            except OSError:
                continue
            return [rows, columns]
        return None

    def raw(self) -> AbstractContextManager[None]:
        from wherry.terminal import RawMode

        return RawMode(0)

    def signals(
        self, on_signal: Callable[[str], None], on_resize: Callable[[], None]
    ) -> AbstractContextManager[None]:
        return _Signals(on_signal, on_resize)

    def read(self, size: int) -> bytes:
        return os.read(0, size)


class _Signals:
    """Signals as bytes in a pipe, which a thread reads: the command may be waiting for input."""

    def __init__(self, on_signal: Callable[[str], None], on_resize: Callable[[], None]) -> None:
        self._on_signal = on_signal
        self._on_resize = on_resize
        self._old: dict[int, Any] = {}

    def __enter__(self) -> None:
        read, write = os.pipe()
        os.set_blocking(write, False)
        signals.set_wakeup_fd(write, warn_on_full_buffer=False)
        _thread.start_new_thread(self._tell, (read,))
        left_alone = {getattr(signals, name, None) for name in NOT_PROXIED} - {signals.SIGWINCH}
        for number in range(1, signals.NSIG):
            if number in left_alone:
                continue
            try:
                if signals.getsignal(number) == signals.SIG_IGN:
                    continue  # nohup
                self._old[number] = signals.signal(number, _heard)
            except (OSError, ValueError):
                continue

    def __exit__(self, *_: object) -> None:
        # The pipe and its thread stay: the process is about to end.
        for number, handler in self._old.items():
            signals.signal(number, handler if handler is not None else signals.SIG_DFL)

    def _tell(self, pipe: int) -> None:
        while numbers := os.read(pipe, 64):
            for number in numbers:
                if number == signals.SIGWINCH:
                    self._on_resize()
                else:
                    self._on_signal(_name(number))


def _heard(number: int, where: object) -> None:
    """Only so that the pipe hears of the signal."""


def _name(number: int) -> str:
    """What a signal is called, which is the same where its number is another."""
    for name in dir(signals):
        if name.startswith("SIG") and name[3] != "_" and getattr(signals, name) == number:
            return name
    return f"SIG{number}"
