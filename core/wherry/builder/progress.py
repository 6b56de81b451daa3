"""What a build tells while it works: a line for each line that a step prints.

On a terminal it is `wherry.builder.display` that shows it, for programs `wherry.builder.rawjson`.
"""

from __future__ import annotations

import sys
import time

from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

STYLES = ("auto", "none", "plain", "quiet", "rawjson", "tty")
_KEPT = 20
# What is no longer than this is a line when it ends, or as soon as it is longer.
_LONGEST = 1 << 14


class Progress:
    """Says nothing: what `--quiet` gets, and the base of the others. It knows the last lines."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._begun: dict[int, float] = {}
        self._ended: set[int] = set()
        self._rest: dict[int, bytes] = {}
        self._lines: dict[int, list[tuple[float, str]]] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        """Steps that have not come to an end will not."""
        for number in self._names.keys() - self._ended:
            self.canceled(number)
        self.close()

    def expect(self, steps: int) -> None:
        """How many steps there will be, as far as can be told."""

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
        *lines, rest = (self._rest.pop(number, b"") + data).split(b"\n")
        # What a bar shows is over when it goes back to the start of the line.
        rest = rest[rest.rfind(b"\r", 0, -1) + 1 :]
        if rest and (not data or len(rest) > _LONGEST):
            lines.append(rest)
        elif rest:
            self._rest[number] = rest
        seconds = time.monotonic() - self._begun[number]
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]
            self._lines[number] = [*self._lines[number], (seconds, text)][-_KEPT:]
            self.line(number, seconds, text)

    def last_lines(self, number: int) -> list[str]:
        """The end of what a step has printed, each line with its time."""
        return [f"{seconds:.3f} {text}" for seconds, text in self._lines[number]]

    def end(self, number: int, seconds: float, *, is_cached: bool = False) -> None:
        """A step is done."""
        self._ended.add(number)
        self.done(number, seconds, is_cached=is_cached)

    def fail(self, number: int, reason: str) -> None:
        """A step has failed."""
        self._ended.add(number)
        self.failed(number, reason)

    def patience(self) -> int | None:
        """How many milliseconds may pass until `tick` is called; None for any."""
        return None

    def tick(self) -> None:
        """Time has passed."""

    # ---- what is shown ----

    def begun(self, number: int, name: str) -> None:
        """A step has begun."""

    def line(self, number: int, seconds: float, text: str) -> None:
        """A step has printed a line."""

    def done(self, number: int, seconds: float, *, is_cached: bool) -> None:
        """A step is done."""

    def failed(self, number: int, reason: str) -> None:
        """A step has failed."""

    def canceled(self, number: int) -> None:
        """A step was ended, because the build ends."""

    def close(self) -> None:
        """The build is over."""


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

    def done(self, number: int, seconds: float, *, is_cached: bool) -> None:
        self._say(number, "CACHED" if is_cached else f"DONE {seconds:.1f}s")

    def failed(self, number: int, reason: str) -> None:
        self._say(number, f"ERROR: {reason}")

    def canceled(self, number: int) -> None:
        self._say(number, "CANCELED")


def open_progress(style: str, *, quiet: bool) -> Progress:
    """The progress that a build has asked for, on standard error."""
    from wherry.screen import can_draw

    stream = sys.stderr
    if quiet or style in ("quiet", "none") or stream is None:
        return Progress()
    if style == "rawjson":
        from wherry.builder.rawjson import RawProgress

        return RawProgress(stream)
    if style == "tty" and not stream.isatty():
        raise UsageError("--progress tty: standard error is no terminal")
    if style == "tty" or (style == "auto" and can_draw(stream)):
        from wherry.builder.display import TerminalProgress

        return TerminalProgress(stream)
    return PlainProgress(stream)
