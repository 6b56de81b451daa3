"""Decompression in a process of its own: a pipe gives the bytes, and their digest at the end.

Decompressing, hashing and writing files take about as long as each other; in threads
they would wait for the interpreter's lock.
"""

from __future__ import annotations

import os
import sys

from wherry.errors import CorruptState, Unsupported, WherryError
from wherry.files import write_all
from wherry.forked import Child
from wherry.lean import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any, Protocol

    from wherry.image.layers import Source

    class Inflater(Protocol):
        """What `lzma` and `bz2` have in common."""

        @property
        def eof(self) -> bool: ...
        @property
        def needs_input(self) -> bool: ...
        @property
        def unused_data(self) -> bytes: ...
        def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


_PIECE = 1 << 18
# The most that a pipe of an unprivileged user may hold (pipe(7)).
_PIPE = 1 << 20
_F_SETPIPE_SZ = 1031
# `xz -9` takes 65 MiB to decompress.
_XZ_MEMORY = 1 << 28

GZIP, ZSTD, XZ, BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh"


class Decompressor:
    """Reads what `source` holds, decompressed by what its first bytes tell; closes it."""

    _pipe: int
    _child: Child

    def __init__(self, source: Source) -> None:
        self._source = source
        self._digest = ""

    def __enter__(self) -> Decompressor:
        if sys.platform != "linux":
            raise Unsupported("layers are unpacked on Linux only")
        from _hashlib import openssl_sha256

        self._pipe, write = os.pipe()
        try:
            import fcntl

            fcntl.fcntl(write, _F_SETPIPE_SZ, _PIPE)
        except OSError:
            pass  # a smaller pipe is slower, not wrong
        # Made before the fork: other threads may be downloading, and a lock of OpenSSL's
        # that one of them holds at this moment would be held in the child for ever.
        digest = openssl_sha256()
        self._child = Child(
            lambda: _decompress(self._source, digest, write), given=(write,), kept=(self._pipe,)
        ).start()
        self._source.close()
        return self

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end. Raises CorruptState for damaged input."""
        data = os.read(self._pipe, size)
        if not data:
            self.digest()
        return data

    def digest(self) -> str:
        """The digest of everything, once it has been read to its end."""
        if not self._digest:
            self._digest = str(self._child.result())
        return self._digest

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._pipe)
        if error is not None:
            # It may be waiting for bytes that do not come.
            os.kill(self._child.pid, signals.SIGKILL)
        self._child.end()


def _decompress(source: Source, digest: Any, write: int) -> str:
    """In the child: the digest of all that it has written."""
    try:
        for piece in decompressed(source.read):
            digest.update(piece)
            write_all(write, piece)
    except (WherryError, BrokenPipeError):
        raise  # damaged, or the reader has had enough
    except Exception as error:
        raise CorruptState(f"a layer cannot be decompressed: {error}") from error
    os.close(write)
    return f"sha256:{digest.hexdigest()}"


def decompressed(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The pieces of a stream that may be compressed by gzip, zstd, xz or bzip2.

    None of them is empty. Raises CorruptState for a stream that is damaged or cut short.
    """
    head = read(_PIECE)
    while 0 < len(head) < 6 and (more := read(_PIECE)):
        head += more
    pieces = _pieces(head, read)
    if head.startswith(GZIP):
        return _gunzip(pieces)
    if head.startswith(ZSTD):
        return _unzstd(pieces)
    if head.startswith(XZ):
        return _unxz(pieces)
    if head.startswith(BZIP2):
        return _bunzip2(pieces)
    return pieces


def _pieces(head: bytes, read: Callable[[int], bytes]) -> Iterator[bytes]:
    while head:
        yield head
        head = read(_PIECE)


def _damaged(reason: object) -> CorruptState:
    return CorruptState(f"a compressed stream is damaged: {reason}")


def _gunzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """All members of a gzip file, one after the other (RFC 1952, 2.2), and zeros after them."""
    import zlib

    inflate = zlib.decompressobj(31)
    try:
        for piece in pieces:
            rest = piece
            while rest:
                if inflate.eof:
                    rest = rest.lstrip(b"\0")
                    if not rest:
                        break
                    inflate = zlib.decompressobj(31)
                if output := inflate.decompress(rest, _PIPE):
                    yield output
                rest = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
        while not inflate.eof and (output := inflate.decompress(b"", _PIPE)):
            yield output
    except zlib.error as error:
        raise _damaged(error) from error
    if not inflate.eof:
        raise CorruptState("a compressed stream ends in the middle")


class _Readable:
    """What zstandard reads from: pieces as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        piece = self._rest or next(self._pieces, b"")
        self._rest = piece[size:]
        return piece[:size]


def _unzstd(pieces: Iterator[bytes]) -> Iterator[bytes]:
    import zstandard

    # A stream says itself how large a window it needs: 128 MiB is what `zstd` allows.
    context = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    source: Any = _Readable(pieces)
    stream = context.stream_reader(source, read_across_frames=True)
    try:
        while output := stream.read(_PIPE):
            yield output
    except zstandard.ZstdError as error:
        raise _damaged(error) from error


def _unxz(pieces: Iterator[bytes]) -> Iterator[bytes]:
    import lzma

    try:
        yield from _bounded(pieces, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY))
    except lzma.LZMAError as error:
        raise _damaged(error) from error


def _bunzip2(pieces: Iterator[bytes]) -> Iterator[bytes]:
    import bz2

    try:
        yield from _bounded(pieces, bz2.BZ2Decompressor)
    except OSError as error:
        raise _damaged(error) from error


def _bounded(pieces: Iterator[bytes], make: Callable[[], Inflater]) -> Iterator[bytes]:
    """All streams of a file, in pieces that are not larger than `_PIPE`."""
    inflate = make()
    for piece in pieces:
        rest = piece
        while rest or not (inflate.needs_input or inflate.eof):
            if inflate.eof:
                rest = rest.lstrip(b"\0")
                if not rest:
                    break
                inflate = make()
            if output := inflate.decompress(rest, _PIPE):
                yield output
            rest = inflate.unused_data if inflate.eof else b""
    if not inflate.eof:
        raise CorruptState("a compressed stream ends in the middle")
