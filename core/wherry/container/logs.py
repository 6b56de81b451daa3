"""A container's log in docker's json-file format, written with rotation and read across it.

One JSON object per line: `{"log":"text\\n","stream":"stdout","time":"RFC 3339"}`. A line
longer than 16 KiB is cut into several records, of which only the last ends in a newline.
`container.log` is the newest; `container.log.1` is the one before it, and so on.
"""

from __future__ import annotations

import os
import time

from wherry.lean import dump_json, load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

LONGEST = 16 << 10

# docker's json-file grows without end; these are docker's limits for its `local` driver.
DEFAULT_SIZE = 20 << 20
DEFAULT_FILES = 5


class LogWriter:
    """Appends to a log, turning it over at `size` bytes and keeping `files` files."""

    def __init__(self, path: str, size: int = DEFAULT_SIZE, files: int = DEFAULT_FILES) -> None:
        """A `size` of 0 never turns over."""
        self._path = path
        self._size = size
        self._files = files
        self._partial = {"stdout": b"", "stderr": b""}
        self._descriptor = -1
        self._written = 0
        self._second = -1
        self._prefix = ""
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o600)
        self._written = os.fstat(self._descriptor).st_size

    def write(self, stream: str, data: bytes) -> None:
        """Record what the container wrote to a stream."""
        *lines, rest = (self._partial[stream] + data).split(b"\n")
        records = []
        if lines:
            now = self._now()
            for line in lines:
                for start in range(0, len(line) + 1, LONGEST):
                    piece = line[start : start + LONGEST]
                    is_last = start + LONGEST > len(line)
                    records.append(self._record(stream, piece + b"\n" if is_last else piece, now))
        while len(rest) >= LONGEST:
            records.append(self._record(stream, rest[:LONGEST], self._now()))
            rest = rest[LONGEST:]
        self._partial[stream] = rest
        if records:
            self._append("".join(records).encode())

    def finish(self) -> None:
        """Record what is left of unfinished lines."""
        for stream, rest in self._partial.items():
            if rest:
                self._append(self._record(stream, rest, self._now()).encode())
                self._partial[stream] = b""

    def close(self) -> None:
        self.finish()
        os.close(self._descriptor)

    def _record(self, stream: str, text: bytes, now: str) -> str:
        log = dump_json(text.decode(errors="replace"))
        return f'{{"log":{log},"stream":"{stream}","time":"{now}"}}\n'

    def _now(self) -> str:
        nanoseconds = time.time_ns()
        second, fraction = divmod(nanoseconds, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._prefix}.{fraction:09d}Z"

    def _append(self, data: bytes) -> None:
        if self._size and self._written and self._written + len(data) > self._size:
            self._rotate()
        try:
            # One write(2): a reader never sees half of a record that is already there.
            self._written += os.write(self._descriptor, data)
        except OSError:
            # A full disk must not stop the container; what it said is lost.
            pass

    def _rotate(self) -> None:
        os.close(self._descriptor)
        for number in range(self._files - 1, 0, -1):
            older = self._path if number == 1 else f"{self._path}.{number - 1}"
            try:
                os.replace(older, f"{self._path}.{number}")
            except FileNotFoundError:
                pass
        if self._files == 1:
            os.unlink(self._path)
        self._open()


class LogReader:
    """Reads a log from its oldest file on, and goes on reading as it grows and turns over."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: Any = None
        self._rest = b""

    def history(self) -> Iterator[dict[str, Any]]:
        """Every record that is there now; `more` goes on from its end."""
        for path in self._older():
            try:
                with open(path, "rb") as file:
                    for line in file:
                        yield from _parse(line)
            except FileNotFoundError:
                continue
        yield from self.more()

    def tail(self, count: int) -> list[dict[str, Any]]:
        """The last `count` records; `more` goes on from the end."""
        kept: list[dict[str, Any]] = []
        newest = True
        for path in reversed([*self._older(), self._path]):
            if len(kept) >= count and not newest:
                break
            lines = _last_lines(path, count - len(kept))
            kept = [record for line in lines for record in _parse(line)] + kept
            newest = False
        self._open(at_end=True)
        return kept[len(kept) - count :] if count else []

    def more(self) -> Iterator[dict[str, Any]]:
        """What has been written since the last call, across a rotation."""
        while True:
            if self._file is None and not self._open():
                return
            while chunk := self._file.read(1 << 16):
                *lines, self._rest = (self._rest + chunk).split(b"\n")
                for line in lines:
                    yield from _parse(line)
            if not self._was_replaced():
                return
            # Nothing is written to a file that has been turned over: it is read to its end.
            self._file.close()
            self._file = None

    def _open(self, *, at_end: bool = False) -> bool:
        try:
            self._file = open(self._path, "rb")  # noqa: SIM115
        except FileNotFoundError:
            return False
        self._rest = b""
        if at_end:
            self._file.seek(0, os.SEEK_END)
        return True

    def _was_replaced(self) -> bool:
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            return False
        return now.st_ino != os.fstat(self._file.fileno()).st_ino

    def _older(self) -> list[str]:
        """The files that have been turned over, oldest first."""
        found = []
        number = 1
        while os.path.exists(f"{self._path}.{number}"):
            found.append(f"{self._path}.{number}")
            number += 1
        return found[::-1]


def _last_lines(path: str, count: int) -> list[bytes]:
    """The last `count` lines of a file, read backwards in blocks."""
    if count <= 0:
        return []
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        return []
    with file:
        position = file.seek(0, os.SEEK_END)
        data = b""
        while position and data.count(b"\n") <= count:
            step = min(1 << 16, position)
            position -= step
            file.seek(position)
            data = file.read(step) + data
    return data.splitlines()[-count:]


def _parse(line: bytes) -> Iterator[dict[str, Any]]:
    """The record of a line; nothing for one that a crash has cut off."""
    try:
        record = load_json(line)
    except ValueError:
        return
    if isinstance(record, dict) and "log" in record:
        yield record
