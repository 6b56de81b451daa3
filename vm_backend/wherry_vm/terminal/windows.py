"""The console of Windows: console modes, and no SIGWINCH.

Keys come as bytes of a terminal (ENABLE_VIRTUAL_TERMINAL_INPUT) where the console is in
raw mode, and what the guest writes is shown as a terminal shows it
(ENABLE_VIRTUAL_TERMINAL_PROCESSING).
"""

from __future__ import annotations

import _thread
import signal
import sys
import time

from wherry_vm.terminal import terminal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any

# wincon.h
STD_INPUT_HANDLE, STD_OUTPUT_HANDLE = -10, -11
ENABLE_PROCESSED_INPUT, ENABLE_LINE_INPUT, ENABLE_ECHO_INPUT = 0x1, 0x2, 0x4
ENABLE_VIRTUAL_TERMINAL_INPUT = 0x200
ENABLE_VIRTUAL_TERMINAL_PROCESSING = 0x4

_BETWEEN_LOOKS = 0.25
"""Seconds between two looks at the size, which nothing tells us of."""


class WindowsConsole:
    """The console this process is attached to, or the pipes in its place."""

    def raw(self) -> AbstractContextManager[None]:
        return _RawConsole()

    def signals(
        self, on_signal: Callable[[str], None], on_resize: Callable[[], None]
    ) -> AbstractContextManager[None]:
        return _Signals(on_signal, on_resize)


class _RawConsole:
    """Console modes for a terminal at the other end, and back again."""

    def __init__(self) -> None:
        self._saved: list[tuple[Any, int]] = []

    def __enter__(self) -> None:
        cooked = ENABLE_PROCESSED_INPUT | ENABLE_LINE_INPUT | ENABLE_ECHO_INPUT
        self._change(STD_INPUT_HANDLE, clear=cooked, add=ENABLE_VIRTUAL_TERMINAL_INPUT)
        self._change(STD_OUTPUT_HANDLE, clear=0, add=ENABLE_VIRTUAL_TERMINAL_PROCESSING)

    def __exit__(self, *_: object) -> None:
        kernel = _kernel32()
        while self._saved:
            handle, mode = self._saved.pop()
            kernel.SetConsoleMode(handle, mode)

    def _change(self, which: int, *, clear: int, add: int) -> None:
        import ctypes

        kernel = _kernel32()
        handle = kernel.GetStdHandle(which)
        mode = ctypes.c_ulong()
        if kernel.GetConsoleMode(handle, ctypes.byref(mode)):
            self._saved.append((handle, mode.value))
            kernel.SetConsoleMode(handle, mode.value & ~clear | add)


class _Signals:
    """Ctrl-C and Ctrl-Break as signals, and a thread that looks at the size."""

    def __init__(self, on_signal: Callable[[str], None], on_resize: Callable[[], None]) -> None:
        self._on_signal = on_signal
        self._on_resize = on_resize
        self._old: dict[int, Any] = {}
        self._lasts = False

    def __enter__(self) -> None:
        for name, told in (("SIGINT", "SIGINT"), ("SIGBREAK", "SIGTERM"), ("SIGTERM", "SIGTERM")):
            number = getattr(signal, name, None)
            if number is not None:
                self._old[number] = signal.signal(number, lambda *_, n=told: self._on_signal(n))
        self._lasts = True
        if terminal_size() is not None:
            _thread.start_new_thread(self._look, ())

    def __exit__(self, *_: object) -> None:
        self._lasts = False
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _look(self) -> None:
        before = terminal_size()
        while self._lasts:
            time.sleep(_BETWEEN_LOOKS)
            now = terminal_size()
            if now != before:
                before = now
                self._on_resize()


def _kernel32() -> Any:
    import ctypes

    if sys.platform != "win32":
        raise OSError("there is no console of Windows here")
    return ctypes.windll.kernel32
