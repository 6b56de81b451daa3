"""Terminals and signals of Linux and macOS: termios(3), signal(7)."""

from __future__ import annotations

import _thread
import os
import sys

from wherry.engine.session import give_signals_back, take_signals
from wherry.lean import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any

assert sys.platform != "win32"


class PosixConsole:
    """The terminal that keys are typed on, and this process's signals."""

    def raw(self) -> AbstractContextManager[None]:
        from wherry.terminal import RawMode

        return RawMode(0)

    def signals(
        self, on_signal: Callable[[str], None], on_resize: Callable[[], None]
    ) -> AbstractContextManager[None]:
        return _Signals(on_signal, on_resize)


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
        self._old = take_signals()

    def __exit__(self, *_: object) -> None:
        # The pipe and its thread stay: the process is about to end.
        give_signals_back(self._old)

    def _tell(self, pipe: int) -> None:
        while numbers := os.read(pipe, 64):
            for number in numbers:
                if number == signals.SIGWINCH:
                    self._on_resize()
                else:
                    self._on_signal(_name(number))


def _name(number: int) -> str:
    """What a signal is called, which is the same where its number is another."""
    for name in dir(signals):
        if name.startswith("SIG") and name[3] != "_" and getattr(signals, name) == number:
            return name
    return f"SIG{number}"
