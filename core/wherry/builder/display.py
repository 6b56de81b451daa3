"""What a build shows on a terminal: a line for each step, and below it what a step prints
that is being carried out; all of it drawn again in place.

    [+] Building 3.2s (5/8)
     => CACHED [1/3] FROM docker.io/library/debian            0.0s
     => [2/3] RUN apt-get update                              2.1s
     => => # Get:1 http://deb.debian.org/debian bookworm InRelease
"""

from __future__ import annotations

import re
import time

from wherry.builder.progress import Progress
from wherry.screen import Drawing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

_REDRAW_SECONDS = 0.15
# How many of the last lines of a step are shown.
_TAIL = 6
# What commands send to a terminal of their own: ECMA-48's sequences, and single controls.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]?|[\0-\x1f\x7f-\x9f]"
)


class TerminalProgress(Progress):
    """Draws the steps that fit on the screen, and in the end all of them."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._drawing = Drawing(stream)
        self._opened = time.monotonic()
        self._expected = 0
        # How steps came to an end, and how long they took.
        self._outcomes: dict[int, tuple[str, float]] = {}
        self._drawn_at = self._opened

    def expect(self, steps: int) -> None:
        self._expected = steps

    def done(self, number: int, seconds: float, *, is_cached: bool) -> None:
        self._outcomes[number] = ("CACHED " if is_cached else "", seconds)
        self.tick()

    def failed(self, number: int, reason: str) -> None:  # noqa: ARG002 - it is told at the end
        self._outcomes[number] = ("ERROR ", self._seconds(number))

    def canceled(self, number: int) -> None:
        self._outcomes[number] = ("CANCELED ", self._seconds(number))

    def patience(self) -> int:
        return max(0, round(1000 * (self._drawn_at + _REDRAW_SECONDS - time.monotonic())))

    def tick(self) -> None:
        if not self.patience():
            columns, rows = self._drawing.size()
            # The cursor has the last row.
            self._draw(columns - 1, rows - 1)

    def close(self) -> None:
        columns, _ = self._drawing.size()
        self._expected = 0
        self._draw(columns - 1, None)
        self._drawing.settle()

    def _draw(self, width: int, height: int | None) -> None:
        lines = [fit(self._header(is_finished=height is None), width)]
        numbers = sorted(self._names)
        room = len(numbers) if height is None else max(height - 1, 0)
        running = [number for number in numbers if number not in self._outcomes]
        running = running[max(len(running) - room, 0) :]
        tail = min(_TAIL, room // len(running) - 1) if running else 0
        tails = {number: self._tail(number, tail) for number in running}
        left = room - sum(1 + len(tails[number]) for number in running)
        ended = [number for number in numbers if number in self._outcomes]
        shown = {*running, *ended[max(len(ended) - left, 0) :]}
        for number in sorted(shown):
            lines.append(self._step(number, width))
            lines += [fit(f" => => # {text}", width) for text in tails.get(number, ())]
        self._drawing.draw(lines)
        self._drawn_at = time.monotonic()

    def _header(self, *, is_finished: bool) -> str:
        total = max(len(self._names), self._expected)
        seconds = time.monotonic() - self._opened
        end = " FINISHED" if is_finished else ""
        return f"[+] Building {seconds:.1f}s ({len(self._outcomes)}/{total}){end}"

    def _step(self, number: int, width: int) -> str:
        mark, seconds = self._outcomes.get(number) or ("", self._seconds(number))
        took = f" {seconds:.1f}s"
        name = f" => {mark}{self._names[number]}"
        return fit(name, width - len(took), pad=True) + took if width > 20 else fit(name, width)

    def _tail(self, number: int, count: int) -> list[str]:
        lines = [text for _, text in self._lines[number]]
        if rest := self._rest.get(number, b"").decode("utf-8", "replace"):
            lines.append(rest.rstrip("\r").rpartition("\r")[2])
        return lines[-count:] if count > 0 else []

    def _seconds(self, number: int) -> float:
        return time.monotonic() - self._begun[number]


def fit(text: str, width: int, *, pad: bool = False) -> str:
    """As much of a text as has room in so many columns; nothing in it moves the cursor."""
    text = _CONTROL.sub("", text.expandtabs())
    if text.isascii():
        return text[:width].ljust(width if pad else 0)
    from unicodedata import combining, east_asian_width

    kept, left, room = "", width, width
    for character in text:
        left -= 0 if combining(character) else 1 + (east_asian_width(character) in "WF")
        if left < 0:
            break
        kept, room = kept + character, left
    return kept + " " * (room if pad else 0)
