"""What a build tells while it works: a line for each line that a step prints."""

from __future__ import annotations

import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

_KEPT = 20


class Progress:
    """Says nothing: what `--quiet` gets, and the base of the others. It knows the last lines."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._begun: dict[int, float] = {}
        self._rest: dict[int, str] = {}
        self._lines: dict[int, list[str]] = {}

    def begin(self, name: str) -> int:
        """A step begins; its number."""
        number = len(self._names) + 1
        self._names[number] = name
        self._begun[number] = time.monotonic()
        self._lines[number] = []
        self.begun(number, name)
        return number

    def output(self, number: int, data: bytes) -> None:
        """What a step has printed; nothing when it prints no more."""
        text = self._rest.pop(number, "") + data.decode("utf-8", "replace")
        *lines, rest = text.replace("\r\n", "\n").split("\n")
        if rest and not data:
            lines.append(rest)
        elif rest:
            self._rest[number] = rest
        for line in lines:
            seconds = time.monotonic() - self._begun[number]
            shown = line.rpartition("\r")[2]
            self._lines[number] = [*self._lines[number], f"{seconds:.3f} {shown}"][-_KEPT:]
            self.line(number, seconds, shown)

    def last_lines(self, number: int) -> list[str]:
        """The end of what a step has printed."""
        return self._lines[number]

    def begun(self, number: int, name: str) -> None:
        """A step has begun."""

    def line(self, number: int, seconds: float, text: str) -> None:
        """A step has printed a line."""

    def end(self, number: int, seconds: float, *, is_cached: bool = False) -> None:
        """A step is done."""

    def fail(self, number: int, reason: str) -> None:
        """A step has failed."""

    def patience(self) -> int | None:
        """How many milliseconds may pass until `tick` is called; None for any."""
        return None

    def tick(self) -> None:
        """Time has passed."""


class PlainProgress(Progress):
    """Lines, each with the number of its step."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._last = 0

    def _say(self, number: int, text: str) -> None:
        gap = "\n" if self._last not in (0, number) else ""
        self._last = number
        self._stream.write(f"{gap}#{number} {text}\n")
        self._stream.flush()

    def begun(self, number: int, name: str) -> None:
        self._say(number, name)

    def line(self, number: int, seconds: float, text: str) -> None:
        self._say(number, f"{seconds:.3f} {text}")

    def end(self, number: int, seconds: float, *, is_cached: bool = False) -> None:
        self._say(number, "CACHED" if is_cached else f"DONE {seconds:.1f}s")

    def fail(self, number: int, reason: str) -> None:
        self._say(number, f"ERROR: {reason}")


def open_progress(style: str, *, quiet: bool) -> Progress:
    """The progress that a build has asked for, on standard error."""
    if quiet or style == "quiet" or sys.stderr is None:
        return Progress()
    return PlainProgress(sys.stderr)
