"""Lines of a terminal that are drawn again and again in place: what progress is shown with.

The cursor is never hidden, and after every drawing it stands below what was drawn: so
there is nothing to restore, however the process ends.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

_CLEAR_LINE = "\x1b[2K"
_CLEAR_BELOW = "\x1b[J"


class Drawing:
    """What stands at the end of a terminal's screen, until it is settled."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        # How long each line is that is drawn.
        self._lengths: list[int] = []

    def draw(self, lines: Sequence[str]) -> None:
        """Put these lines in the place of the last ones; each fits into `size()`."""
        height = self._height()
        text = "".join(f"{_CLEAR_LINE}{line}\n" for line in lines)
        rest = _CLEAR_BELOW if len(lines) < height else ""
        write(self._stream, f"{_up(height)}{text}{rest}")
        self._lengths = [len(line) for line in lines]

    def say(self, text: str) -> None:
        """Put a line in the place of what is drawn, and have it stay."""
        write(self._stream, f"{_up(self._height())}{_CLEAR_BELOW}{text}\n")
        self._lengths = []

    def settle(self) -> None:
        """Leave what is drawn as it is; what comes next stands below it."""
        self._lengths = []

    def size(self) -> os.terminal_size:
        """Columns and rows of the terminal."""
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return os.terminal_size((80, 24))
        # A pseudo-terminal that nobody has given a size says 0.
        return os.terminal_size((size.columns or 80, size.lines or 24))

    def _height(self) -> int:
        """How many rows the drawing has: more where the terminal has become narrower."""
        columns = self.size().columns
        return sum(max(1, -(-length // columns)) for length in self._lengths)


def write(stream: TextIO, text: str) -> None:
    """Show it at once; where nobody looks at it any more the work goes on."""
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        pass


def _up(rows: int) -> str:
    return f"\r\x1b[{rows}A" if rows else ""


def can_draw(stream: TextIO) -> bool:
    """Whether a stream is a terminal that a drawing can be made on."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and _speaks_ansi()


if sys.platform == "win32":

    def _speaks_ansi() -> bool:
        """Have the console understand escape sequences; older ones must be asked to."""
        import ctypes

        kernel32 = ctypes.windll.kernel32
        handle = kernel32.GetStdHandle(-12)
        mode = ctypes.c_ulong()
        if not kernel32.GetConsoleMode(handle, ctypes.byref(mode)):
            return False
        enable_virtual_terminal_processing = 4
        return bool(
            kernel32.SetConsoleMode(handle, mode.value | enable_virtual_terminal_processing)
        )

else:

    def _speaks_ansi() -> bool:
        return True
