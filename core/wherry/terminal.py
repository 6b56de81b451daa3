"""Raw mode of the terminal that a command was typed in, undone on every way out."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

if sys.platform == "win32":

    class RawMode:
        """The console of Windows; its modes belong to the VM backend, which runs there."""

        def __init__(self, descriptor: int) -> None:
            raise NotImplementedError(descriptor)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    def copy_size(terminal: int) -> None:
        """See above."""
        raise NotImplementedError(terminal)

else:
    import atexit
    import fcntl
    import os
    import struct
    import termios

    def copy_size(terminal: int) -> None:
        """Give `terminal` the size of the one that this command was typed in."""
        for descriptor in (1, 0, 2):
            try:
                columns, rows = os.get_terminal_size(descriptor)
            except OSError:
                continue
            size = struct.pack("HHHH", rows, columns, 0, 0)
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
            return

    class RawMode:
        """Keys go to the container as they are typed: termios(3), "Raw mode"."""

        def __init__(self, descriptor: int) -> None:
            self._descriptor = descriptor
            self._saved: list[Any] | None = None

        def __enter__(self) -> None:
            saved = termios.tcgetattr(self._descriptor)
            raw = [*saved[:6], list(saved[6])]
            raw[0] &= ~(
                termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
                | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
            )  # fmt: skip
            raw[1] &= ~termios.OPOST
            raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
            raw[3] &= ~(
                termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN
            )
            raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
            # An unhandled signal would leave the terminal raw; atexit covers sys.exit.
            self._saved = saved
            atexit.register(self._restore)
            termios.tcsetattr(self._descriptor, termios.TCSANOW, raw)

        def __exit__(self, *_: object) -> None:
            self._restore()
            atexit.unregister(self._restore)

        def _restore(self) -> None:
            if self._saved is not None:
                try:
                    termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._saved)
                except termios.error:
                    pass  # the terminal is gone
                self._saved = None
