"""The terminal, keys and signals of the host: one file for each kind of system."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Protocol

    class Console(Protocol):
        """What a command in the foreground needs of this system."""

        def raw(self) -> AbstractContextManager[None]:
            """While it lasts keys arrive as they are typed."""

        def signals(
            self, on_signal: Callable[[str], None], on_resize: Callable[[], None]
        ) -> AbstractContextManager[None]:
            """While it lasts signals to this process are told by name, instead of ending it."""


def terminal_size() -> list[int] | None:
    """Rows and columns of the terminal that the command is typed on; None without one."""
    for descriptor in (1, 0, 2):
        try:
            columns, rows = os.get_terminal_size(descriptor)
        except OSError:
            continue
        return [rows, columns]
    return None


def open_console() -> Console:
    """This system's."""
    if sys.platform == "win32":
        from wherry_vm.terminal.windows import WindowsConsole

        return WindowsConsole()
    else:  # noqa: RET505 - the type checker reads each half on its own system
        from wherry_vm.terminal.posix import PosixConsole

        return PosixConsole()
