"""What a pull shows on a terminal, and what elsewhere."""

from __future__ import annotations

import io
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from wherry.image.progress import PlainProgress, Progress, open_progress, progress_line

if TYPE_CHECKING:
    from collections.abc import Callable

linux_terminal = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


def test_line_has_a_bar_and_how_much_is_done() -> None:
    line = progress_line("a1b2c3", "Downloading", 12_300_000, 48_000_000, 120)

    assert line == f"a1b2c3: Downloading  [{'=' * 12}>{' ' * 38}] 12.3MB/48MB"


@pytest.mark.parametrize("width", [200, 100, 80, 60, 50, 40, 20, 5, 1])
def test_line_is_never_wider_than_the_terminal(width: int) -> None:
    for current in (0, 1, 999_999, 123_456_789, 200_000_000):
        line = progress_line("a1b2c3d4e5f6", "Downloading", current, 123_456_789, width)
        assert len(line) <= width


def test_plain_lines_tell_each_event_once() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)

    with progress:
        progress.message("latest: Pulling from library/busybox")
        progress.update("a1b2", "Pulling fs layer")
        for done in range(10):
            progress.update("a1b2", "Downloading", done, 10)
        progress.update("a1b2", "Download complete")
        progress.update("a1b2", "Download complete")

    assert stream.getvalue() == (
        "latest: Pulling from library/busybox\na1b2: Pulling fs layer\na1b2: Download complete\n"
    )


def test_reader_that_went_away_is_no_error() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    progress = PlainProgress(Closed())

    progress.message("nobody reads this")


def test_quiet_progress_says_nothing() -> None:
    assert type(open_progress(io.StringIO(), quiet=True)) is Progress


def test_file_gets_plain_lines() -> None:
    assert isinstance(open_progress(io.StringIO()), PlainProgress)


def show(rows: int, columns: int, tell: Callable[[Progress], None]) -> str:
    """What a terminal of that size is sent."""
    if sys.platform == "win32":
        pytest.skip("needs a terminal of POSIX")
    import fcntl
    import os
    import struct
    import termios
    import tty

    leader, follower = os.openpty()
    tty.setraw(follower)
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    sent = bytearray()

    def read() -> None:
        """What a terminal does: nobody can write more than a few kilobytes that it has not read."""
        try:
            while piece := os.read(leader, 65536):
                sent.extend(piece)
        except OSError:
            pass  # EIO: the other side is closed

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(follower, "w") as stream, open_progress(stream) as progress:
        tell(progress)
        stream.flush()
    reader.join()
    os.close(leader)
    return sent.decode()


class Screen:
    """Enough of a terminal to see what is on it in the end."""

    def __init__(self, rows: int, text: str) -> None:
        self.lines = [""] * rows
        self.row = self.top = 0
        for part in text.replace("\r", "").replace("\x1b", "\n\x1b").split("\n\x1b"):
            self._take(part)

    def _take(self, part: str) -> None:
        if part.startswith("["):
            end = next(i for i, c in enumerate(part) if c.isalpha())
            count, action, part = part[1:end], part[end], part[end + 1 :]
            if action == "A":
                self.row -= int(count)
                assert self.row >= 0, "the cursor left the screen"
            elif action == "K":
                self.lines[self.row] = ""
            elif action == "J":
                self.lines[self.row :] = [""] * (len(self.lines) - self.row)
        first, *rest = part.split("\n")
        self.lines[self.row] += first
        for line in rest:
            self.row += 1
            if self.row == len(self.lines):
                self.lines = [*self.lines[1:], ""]
                self.row -= 1
            self.lines[self.row] += line

    def text(self) -> str:
        return "\n".join(self.lines).strip("\n")


@linux_terminal
def test_terminal_shows_a_line_per_layer_and_ends_below_them() -> None:
    def tell(progress: Progress) -> None:
        progress.message("latest: Pulling from library/busybox")
        progress.update("a", "Waiting")
        progress.update("b", "Waiting")
        for done in range(100):
            progress.update("a", "Downloading", done, 100)
        progress.message("the registry warns")
        progress.update("b", "Pull complete")
        progress.update("a", "Pull complete")
        progress.settle()
        progress.message("Status: Downloaded")

    sent = show(24, 80, tell)

    assert Screen(24, sent).text() == (
        "latest: Pulling from library/busybox\n"
        "the registry warns\n"
        "a: Pull complete\n"
        "b: Pull complete\n"
        "Status: Downloaded"
    )
    assert sent.endswith("\n")
    # A hundred steps at once are one drawing or two, not a hundred.
    assert sent.count("Downloading") < 10


@linux_terminal
def test_more_layers_than_rows_do_not_scroll_away() -> None:
    def tell(progress: Progress) -> None:
        for number in range(30):
            progress.update(f"layer{number}", "Waiting")
        for number in range(30):
            progress.update(f"layer{number}", "Downloading", 1, 2)
            progress.update(f"layer{number}", "Pull complete")

    screen = Screen(10, show(10, 80, tell))

    assert "Downloading" not in screen.text()


@linux_terminal
def test_narrow_terminal_is_not_overrun() -> None:
    sent = show(24, 30, lambda progress: progress.update("a1b2c3d4e5f6", "Downloading", 5, 10))

    assert all(len(line) < 30 for line in Screen(24, sent).text().splitlines())
