"""Reading a file of lines that others append to and turn over: PATH, PATH.1, PATH.2, …

A file that is turned over gets the next number and is not written to any more; so a
reader that has a file open loses nothing, and one that opens them from the newest to the
oldest misses none, though it may meet the same file twice.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_BLOCK = 1 << 16


class TurnedLines:
    """The lines of a file and of those before it, each once, however they are turned over."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def history(self) -> Iterator[bytes]:
        """Every line that is there now, the oldest first; `more` goes on from the end."""
        files = self._files()
        for file in files[:0:-1]:
            with file:
                yield from file
        self._take(files[0] if files else None)
        yield from self.more()

    def tail(self, count: int) -> list[bytes]:
        """The last `count` lines; `more` goes on from the end."""
        files = self._files()
        self._take(files[0] if files else None)
        kept: list[bytes] = []
        for file in files:
            lines, rest = _last_lines(file, count - len(kept))
            kept = lines + kept
            if file is self._file:
                self._rest = rest
            else:
                file.close()
        return kept

    def more(self) -> Iterator[bytes]:
        """What has been written since the last call."""
        while True:
            if self._file is None:
                files = self._files()
                self._take(files.pop() if files else None)
                for newer in files:
                    newer.close()
            if self._file is None:
                return
            yield from self._read()
            if not self._was_turned_over():
                return
            # What was written between the last look and the turn.
            yield from self._read()
            self._take(self._next())

    def _read(self) -> Iterator[bytes]:
        assert self._file is not None
        while chunk := self._file.read(_BLOCK):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            yield from lines

    def _take(self, file: BinaryIO | None) -> None:
        if self._file is not None:
            self._file.close()
        self._file = file
        self._rest = b""

    def _was_turned_over(self) -> bool:
        assert self._file is not None
        try:
            return os.stat(self._path).st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return False  # it is being done

    def _next(self) -> BinaryIO | None:
        """The file that follows the one at hand: the oldest of those that are newer."""
        assert self._file is not None
        here = os.fstat(self._file.fileno()).st_ino
        following: BinaryIO | None = None
        is_newer = True
        for file in self._files():
            is_newer = is_newer and os.fstat(file.fileno()).st_ino != here
            if not is_newer:
                file.close()
                continue
            if following is not None:
                following.close()
            following = file
        return following

    def _files(self) -> list[BinaryIO]:
        """All files, opened, the newest first."""
        found: list[BinaryIO] = []
        seen = set()
        number = missing = 0
        # While they are turned over one number is free.
        while missing < 2:
            try:
                file = open(f"{self._path}.{number}" if number else self._path, "rb")  # noqa: SIM115
            except FileNotFoundError:
                missing += 1
            else:
                missing = 0
                inode = os.fstat(file.fileno()).st_ino
                if inode in seen:
                    file.close()
                else:
                    seen.add(inode)
                    found.append(file)
            number += 1
        return found


def _last_lines(file: BinaryIO, count: int) -> tuple[list[bytes], bytes]:
    """The last `count` lines of a file, read backwards, and what follows its last newline.

    The file is left at its end, as it was when this began.
    """
    end = position = file.seek(0, os.SEEK_END)
    data = b""
    while position and data.count(b"\n") <= count:
        step = min(_BLOCK, position)
        position -= step
        file.seek(position)
        data = file.read(step) + data
    file.seek(end)
    *lines, rest = data.split(b"\n")
    return lines[max(0, len(lines) - count) :], rest
