"""What a pull or a push tells while it works: a line per layer that is drawn again and
again on a terminal, plain lines elsewhere, always on standard error.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from wherry.human import human_size
from wherry.screen import Drawing, can_draw, write

if TYPE_CHECKING:
    from types import TracebackType
    from typing import TextIO

_REDRAW_SECONDS = 0.1
_MAX_BAR = 50
_MIN_BAR = 10

# Ways that take a while: a terminal shows how far they are, plain lines leave them out.
_TRANSIENT = frozenset(
    ("Waiting", "Downloading", "Extracting", "Pushing", "Preparing", "Verifying Checksum")
)


class Progress:
    """Says nothing: what `--quiet` gets, and the base of the others."""

    def message(self, text: str) -> None:
        """Say one line."""

    def update(self, name: str, status: str, current: int = 0, total: int = 0) -> None:
        """Say where `name` is: a status, and how much of how much is done."""

    def settle(self) -> None:
        """Leave the layers as they are now; what is said next stands below them."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave what is shown as it is."""
        self.settle()


class PlainProgress(Progress):
    """A line per event."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""
        self._lock = threading.Lock()

    def message(self, text: str) -> None:
        with self._lock:
            write(self._stream, f"{text}\n")

    def update(
        self,
        name: str,
        status: str,
        current: int = 0,  # noqa: ARG002 - a terminal's business
        total: int = 0,  # noqa: ARG002
    ) -> None:
        with self._lock:
            line = f"{name}: {status}\n"
            if status not in _TRANSIENT and line != self._last:
                self._last = line
                write(self._stream, line)


class TerminalProgress(Progress):
    """One line per layer, drawn in place at most ten times a second."""

    def __init__(self, stream: TextIO) -> None:
        self._drawing = Drawing(stream)
        self._lines: dict[str, tuple[str, int, int]] = {}
        self._drawn_at = 0.0
        self._is_current = True
        self._lock = threading.Lock()

    def message(self, text: str) -> None:
        with self._lock:
            self._drawing.say(text)
            self._draw()

    def update(self, name: str, status: str, current: int = 0, total: int = 0) -> None:
        with self._lock:
            before = self._lines.get(name)
            self._lines[name] = (status, current, total)
            self._is_current = False
            is_same_status = before is not None and before[0] == status
            if not is_same_status or time.monotonic() - self._drawn_at >= _REDRAW_SECONDS:
                self._draw()

    def settle(self) -> None:
        with self._lock:
            if not self._is_current:
                self._draw()
            self._lines.clear()
            self._drawing.settle()

    def _draw(self) -> None:
        columns, rows = self._drawing.size()
        self._drawing.draw(
            [progress_line(name, *state, columns - 1) for name, state in self._visible(rows - 1)]
        )
        self._drawn_at = time.monotonic()
        self._is_current = True

    def _visible(self, room: int) -> list[tuple[str, tuple[str, int, int]]]:
        """The lines to show: all of them, or where they are too many those that still change."""
        lines = list(self._lines.items())
        if len(lines) <= room:
            return lines
        return [line for line in lines if line[1][0] in _TRANSIENT][: max(room, 1)]


def progress_line(name: str, status: str, current: int, total: int, width: int) -> str:
    """One layer's line, no wider than `width`."""
    head = f"{name}: {status}"
    if not current and not total:
        return head[:width]
    numbers = human_size(current) + (f"/{human_size(total)}" if total else "")
    bar_width = min(_MAX_BAR, width - len(head) - len("  [>] ") - len("999.9MB/999.9MB"))
    if not total or bar_width < _MIN_BAR:
        return f"{head}  {numbers}"[:width]
    done = min(bar_width, bar_width * current // total)
    bar = f"[{'=' * done}>{' ' * (bar_width - done)}]"
    return f"{head}  {bar} {numbers:>8}"[:width]


def open_progress(stream: TextIO | None = None, *, quiet: bool = False) -> Progress:
    """The progress that suits `stream` (standard error where not given)."""
    if quiet:
        return Progress()
    stream = stream or sys.stderr
    return TerminalProgress(stream) if can_draw(stream) else PlainProgress(stream)
