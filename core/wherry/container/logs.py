"""A container's log in docker's json-file format, written with rotation and read across it.

One JSON object per line: `{"log":"text\\n","stream":"stdout","time":"RFC 3339"}`. A line
longer than 16 KiB is cut into several records, of which only the last ends in a newline.
`container.log` is the newest; `container.log.1` is the one before it, and so on.
"""

from __future__ import annotations

import os
import stat
import time

from wherry.errors import CorruptState
from wherry.lean import dump_json, load_json, posix, quote_json
from wherry.lines import COMPRESSED, TurnedLines, compress
from wherry.shapes import TEXTS, fits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

LONGEST = 16 << 10

# docker's json-file grows without end; these are docker's limits for its `local` driver.
_SHAPE = {"log!": str, "stream!": str, "time!": str, "attrs": TEXTS}

DEFAULT_SIZE = 20 << 20
DEFAULT_FILES = 5


class LogWriter:
    """Appends to a log, turning it over at `size` bytes and keeping `files` files."""

    def __init__(
        self,
        path: str,
        size: int = DEFAULT_SIZE,
        files: int = DEFAULT_FILES,
        *,
        compressed: bool = False,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """A `size` of 0 never turns over. Every record says the `attributes`."""
        self._path = path
        self._size = size
        self._files = files
        self._compressed = compressed
        self._attributes = f',"attrs":{dump_json(attributes)}' if attributes else ""
        self._partial = {"stdout": b"", "stderr": b""}
        self._descriptor = -1
        self._written = 0
        self._second = -1
        self._prefix = ""
        self._open()

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        self._descriptor = os.open(self._path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            raise CorruptState(f"{self._path} is damaged: it is no file")
        self._written = os.fstat(self._descriptor).st_size
        if self._written and posix.pread(self._descriptor, 1, self._written - 1) != b"\n":
            # A crash cut the last record off; the next one must not suffer for it.
            self._write(b"\n")

    def write(self, stream: str, data: bytes) -> None:
        """Record what the container wrote to a stream."""
        text, newline, rest = (self._partial[stream] + data).rpartition(b"\n")
        if newline:
            lines = text.split(b"\n")
            if max(map(len, lines)) <= LONGEST:
                self._append(self._of_lines(stream, text))
            else:
                pieces: list[bytes] = []
                for line in lines:
                    *begun, last = cut(line)
                    pieces += [*begun, last + b"\n"]
                self._append(self._of_pieces(stream, pieces))
        if len(rest) > LONGEST:
            *pieces, rest = cut(rest)
            self._append(self._of_pieces(stream, pieces))
        self._partial[stream] = rest

    def finish(self) -> None:
        """Record what is left of unfinished lines."""
        for stream, rest in self._partial.items():
            if rest:
                self._partial[stream] = b""
                self._append(self._of_pieces(stream, [rest]))

    def unfinished(self) -> dict[str, str]:
        """The beginnings of lines that are in no record yet, for `go_on` of another writer."""
        return {stream: rest.decode("latin-1") for stream, rest in self._partial.items()}

    def go_on(self, unfinished: Mapping[str, str]) -> None:
        """Take up the lines that another writer had begun."""
        for stream, rest in unfinished.items():
            self._partial[stream] = rest.encode("latin-1")

    def close(self) -> None:
        self.finish()
        os.close(self._descriptor)

    def _of_lines(self, stream: str, text: bytes) -> bytes:
        """The records of lines that need not be cut; the last one has lost its newline."""
        if b"\\" in text or b"\x7f" in text:
            return self._of_pieces(stream, [line + b"\n" for line in text.split(b"\n")])
        # All of them at once: what stands for a newline is found again as \u007f.
        quoted = quote_json(text.replace(b"\n", b"\x7f").decode(errors="replace"))
        end = self._end(stream)
        records = quoted[:-1].replace("\\u007f", f'\\n"{end}{{"log":"')
        return f'{{"log":{records}\\n"{end}'.encode()

    def _of_pieces(self, stream: str, pieces: list[bytes]) -> bytes:
        """The records of pieces of text, each as it is."""
        end = self._end(stream)
        return "".join(
            f'{{"log":{quote_json(piece.decode(errors="replace"))}{end}' for piece in pieces
        ).encode()

    def _end(self, stream: str) -> str:
        return f',"stream":"{stream}"{self._attributes},"time":"{self._now()}"}}\n'

    def _now(self) -> str:
        nanoseconds = time.time_ns()
        second, fraction = divmod(nanoseconds, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._prefix}.{fraction:09d}Z"

    def _append(self, records: bytes) -> None:
        while self._size and records and self._written + len(records) > self._size:
            fitting = records.rfind(b"\n", 0, max(0, self._size - self._written)) + 1
            if not fitting and not self._written:
                fitting = records.index(b"\n") + 1  # one is larger than a file may be
            self._write(records[:fitting])
            records = records[fitting:]
            if records:
                self._rotate()
        self._write(records)

    def _write(self, records: bytes) -> None:
        try:
            # One write(2): a reader never sees half of a record that is already there.
            written = os.write(self._descriptor, records)
        except OSError:
            return  # a full disk must not stop the container; what it said is lost
        if written < len(records):
            os.ftruncate(self._descriptor, self._written)
        else:
            self._written += written

    def _rotate(self) -> None:
        os.close(self._descriptor)
        for number in range(self._files - 1, 1, -1):
            for ending in ("", COMPRESSED):
                older = f"{self._path}.{number - 1}{ending}"
                self._replace(older, f"{self._path}.{number}{ending}")
        if self._files == 1:
            os.unlink(self._path)
        else:
            self._replace(self._path, f"{self._path}.1")
        if self._compressed:
            compress(f"{self._path}.1")
        self._open()

    @staticmethod
    def _replace(older: str, newer: str) -> None:
        try:
            os.replace(older, newer)
        except FileNotFoundError:
            pass


def cut(line: bytes) -> list[bytes]:
    """A line in pieces that fit into a record each, no character in two of them."""
    pieces = []
    start = 0
    while len(line) - start > LONGEST:
        end = start + LONGEST
        for back in range(4):
            if line[end - back] & 0xC0 != 0x80:
                end -= back
                break
        pieces.append(line[start:end])
        start = end
    return [*pieces, line[start:]]


class LogReader:
    """Reads a log from its oldest file on, and goes on reading as it grows and turns over."""

    def __init__(self, path: str) -> None:
        self._lines = TurnedLines(path)

    def history(self) -> Iterator[dict[str, Any]]:
        """Every record that is there now; `more` goes on from its end."""
        return _records(self._lines.history())

    def tail(self, count: int) -> Iterator[dict[str, Any]]:
        """The last `count` records; `more` goes on from the end."""
        return _records(self._lines.tail(count))

    def more(self) -> Iterator[dict[str, Any]]:
        """What has been written since the last call, across a rotation."""
        return _records(self._lines.more())


def _records(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The records of lines; nothing for one that a crash has cut off."""
    for line in lines:
        try:
            record = load_json(line)
        except ValueError:
            continue
        if fits(record, _SHAPE):
            yield record
