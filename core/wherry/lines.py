"""Reading a file of lines that others append to and turn over: PATH, PATH.1, PATH.2, …

A file that is turned over gets the next number and is not written to any more; so a
reader that has a file open loses nothing, and one that opens them from the newest to the
oldest misses none, though it may meet the same file twice.

One that is turned over may be compressed as well: PATH.1.gz. A reader that still has it
open knows it again by what it was, which the header of the compressed file has for a name.
"""

from __future__ import annotations

import os

from wherry.files import open_private, open_regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_BLOCK = 1 << 16
# More than a line has, whoever writes it: what is longer is damage.
_LONGEST = 4 << 20
COMPRESSED = ".gz"
# As much of a file as has the time of its first record.
_START = 512


def compress(path: str) -> None:
    """Put `path`.gz in the place of `path`; nothing happens where that cannot be."""
    import shutil
    from gzip import GzipFile

    draft = f"{path}.tmp"
    try:
        with open(path, "rb") as source, open(draft, "wb", opener=open_private) as target:
            name = "-".join(map(str, _identity(source)))
            # The fastest level: whoever writes the log waits.
            with GzipFile(name, "wb", 1, target) as packed:
                shutil.copyfileobj(source, packed, _BLOCK)
        os.replace(draft, f"{path}{COMPRESSED}")
        os.unlink(path)
    except OSError:
        try:
            os.unlink(draft)
        except OSError:
            pass  # the next one takes its place


def _identity(file: BinaryIO) -> tuple[int, ...]:
    """What a file is as long as nobody writes to it.

    How it begins belongs to it: the inode of one that is gone is soon another's, and two that
    were turned over within a tick of the clock may have the same time and size, too.
    """
    from zlib import crc32

    found = os.fstat(file.fileno())
    position = file.tell()
    file.seek(0)
    start = file.read(_START)
    file.seek(position)
    return found.st_ino, found.st_mtime_ns, found.st_size, crc32(start)


class _File:
    """One of the files, held open; what is compressed is unpacked when it is read."""

    def __init__(self, path: str) -> None:
        """Raises FileNotFoundError, or CorruptState where it is no file."""
        self._file: BinaryIO = open(open_regular(path), "rb")  # noqa: SIM115 - closed by `close`
        self._packed: tuple[int, ...] | None = None
        self._is_unpacked = True
        if path.endswith(COMPRESSED):
            self._is_unpacked = False
            # RFC 1952: ten bytes, then the name, which ends with a zero.
            name = self._file.read(128)[10:].partition(b"\0")[0]
            self._packed = tuple(int(one) for one in name.split(b"-") if one.isdigit())
            self._file.seek(0)

    def inode(self) -> int:
        """Its inode; none of those that may be written to for what is compressed."""
        return os.fstat(self._file.fileno()).st_ino if self._packed is None else -1

    def is_same(self, other: _File) -> bool:
        """Whether both are one file, which may have been compressed meanwhile."""
        if self._packed is None and other._packed is None:
            return self.inode() == other.inode()
        return self._known() == other._known()

    def _known(self) -> tuple[int, ...]:
        return _identity(self._file) if self._packed is None else self._packed

    def content(self) -> BinaryIO:
        if not self._is_unpacked:
            from gzip import GzipFile
            from io import BytesIO
            from zlib import error

            self._is_unpacked = True
            packed = self._file
            try:
                self._file = BytesIO(GzipFile(fileobj=packed).read())
            except (OSError, EOFError, error):
                self._file = BytesIO()  # damaged: the others are still worth something
            packed.close()
        return self._file

    def close(self) -> None:
        self._file.close()


class TurnedLines:
    """The lines of a file and of those before it, each once, however they are turned over."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: _File | None = None
        self._rest = b""

    def history(self) -> Iterator[bytes]:
        """Every line that is there now, the oldest first; `more` goes on from the end."""
        files = self._files()
        for file in files[:0:-1]:
            content = file.content()
            while line := content.readline(_LONGEST):
                yield line
            file.close()
        self._take(files[0] if files else None)
        yield from self.more()

    def tail(self, count: int) -> list[bytes]:
        """The last `count` lines; `more` goes on from the end."""
        files = self._files()
        self._take(files[0] if files else None)
        kept: list[bytes] = []
        for file in files:
            if file is self._file or len(kept) < count:
                lines, rest = _last_lines(file.content(), count - len(kept))
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
        while chunk := self._file.content().read(_BLOCK):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            yield from lines
            if len(self._rest) > _LONGEST:
                self._rest = b""  # what comes up to the next newline is no line of ours

    def _take(self, file: _File | None) -> None:
        if self._file is not None:
            self._file.close()
        self._file = file
        self._rest = b""

    def _was_turned_over(self) -> bool:
        assert self._file is not None
        try:
            return os.stat(self._path).st_ino != self._file.inode()
        except FileNotFoundError:
            return False  # it is being done

    def _next(self) -> _File | None:
        """The file that follows the one at hand: the oldest of those that are newer."""
        assert self._file is not None
        following: _File | None = None
        is_newer = True
        for file in self._files():
            is_newer = is_newer and not file.is_same(self._file)
            if not is_newer:
                file.close()
                continue
            if following is not None:
                following.close()
            following = file
        return following

    def _files(self) -> list[_File]:
        """All files, opened, the newest first."""
        found: list[_File] = []
        number = missing = 0
        # While they are turned over one number is free.
        while missing < 2:
            file = self._open(number)
            if file is None:
                missing += 1
            else:
                missing = 0
                if any(file.is_same(known) for known in found):
                    file.close()
                else:
                    found.append(file)
            number += 1
        return found

    def _open(self, number: int) -> _File | None:
        for ending in ("", COMPRESSED) if number else ("",):
            try:
                return _File(f"{self._path}.{number}{ending}" if number else self._path)
            except FileNotFoundError:
                continue
        return None


def _last_lines(file: BinaryIO, count: int) -> tuple[list[bytes], bytes]:
    """The last `count` lines of a file, read backwards, and what follows its last newline.

    The file is left at its end, as it was when this began.
    """
    end = position = file.seek(0, os.SEEK_END)
    data = b""
    unbroken = 0
    while position and data.count(b"\n") <= count and unbroken <= _LONGEST:
        step = min(_BLOCK, position)
        position -= step
        file.seek(position)
        block = file.read(step)
        unbroken = 0 if b"\n" in block else unbroken + step
        data = block + data
    file.seek(end)
    *lines, rest = data.split(b"\n")
    return lines[max(0, len(lines) - count) :], rest
