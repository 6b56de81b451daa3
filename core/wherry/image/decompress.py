"""Decompression in a process of its own: a pipe gives the bytes, and their digest at the end.

Decompressing, hashing and writing files take about as long as each other; in threads
they would wait for the interpreter's lock.
"""

from __future__ import annotations

import errno
import os

from wherry.errors import CorruptState, WherryError, from_json, to_json
from wherry.lean import dump_json, load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from wherry.image.layers import Source

_PIECE = 1 << 18
# The most that a pipe of an unprivileged user may hold (pipe(7)).
_PIPE = 1 << 20
_F_SETPIPE_SZ = 1031

GZIP, ZSTD, XZ, BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh"


class Decompressor:
    """Reads what `source` holds, decompressed by what its first bytes tell; closes it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._child = 0
        self._pipe = -1
        self._result = -1

    def __enter__(self) -> Decompressor:
        self._pipe, write = os.pipe2(os.O_CLOEXEC)
        self._result, result = os.pipe2(os.O_CLOEXEC)
        try:
            import fcntl

            fcntl.fcntl(write, _F_SETPIPE_SZ, _PIPE)
        except OSError:
            pass  # a smaller pipe is slower, not wrong
        self._child = os.fork()
        if self._child == 0:
            os.close(self._pipe)
            os.close(self._result)
            _serve(self._source, write, result)
        os.close(write)
        os.close(result)
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
        if self._result >= 0:
            answer = b"".join(iter(lambda: os.read(self._result, 65536), b""))
            os.close(self._result)
            self._result = -1
            if not answer:
                raise WherryError("decompression was killed")
            self._outcome = load_json(answer)
        if "error" in self._outcome:
            raise from_json(self._outcome["error"])
        return str(self._outcome["digest"])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._pipe)  # a child that still writes ends by it
        if self._result >= 0:
            os.close(self._result)
        os.waitpid(self._child, 0)


def _serve(source: Source, write: int, result: int) -> None:
    """The forked child; never returns."""
    from _hashlib import openssl_sha256

    try:
        digest = openssl_sha256()
        for piece in decompressed(source.read):
            digest.update(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(write, view) :]
        os.close(write)
        os.write(result, dump_json({"digest": f"sha256:{digest.hexdigest()}"}).encode())
    except BrokenPipeError:
        pass  # the reader has had enough
    except BaseException as error:
        if not isinstance(error, WherryError):
            error = CorruptState(f"a layer cannot be decompressed: {error}")
        try:
            os.write(result, dump_json({"error": to_json(error)}).encode())
        except OSError as failure:
            if failure.errno != errno.EPIPE:
                os._exit(1)
    os._exit(0)


def decompressed(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The pieces of a stream that may be compressed by gzip, zstd, xz or bzip2."""
    head = read(_PIECE)
    while len(head) < 6:
        more = read(_PIECE)
        if not more:
            break
        head += more
    pieces = _pieces(head, read)
    if head.startswith(GZIP):
        yield from _gunzip(pieces)
    elif head.startswith(ZSTD):
        yield from _unzstd(pieces)
    elif head.startswith(XZ):
        import lzma

        yield from _plainly(pieces, lzma.LZMADecompressor)
    elif head.startswith(BZIP2):
        import bz2

        yield from _plainly(pieces, bz2.BZ2Decompressor)
    else:
        yield from pieces


def _pieces(head: bytes, read: Callable[[int], bytes]) -> Iterator[bytes]:
    while head:
        yield head
        head = read(_PIECE)


def _gunzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """All members of a gzip file, one after the other (RFC 1952, 2.2)."""
    import zlib

    inflate = zlib.decompressobj(31)
    begun = False
    for piece in pieces:
        while piece:
            if inflate.eof:
                piece = piece.lstrip(b"\0") if not begun else piece
                inflate = zlib.decompressobj(31)
                begun = False
                if not piece:
                    break
            begun = True
            output = inflate.decompress(piece, _PIPE)
            while output:
                yield output
                output = (
                    inflate.decompress(inflate.unconsumed_tail, _PIPE)
                    if inflate.unconsumed_tail
                    else b""
                )
            piece = inflate.unused_data
            if inflate.eof:
                begun = False
    if not inflate.eof:
        raise CorruptState("a compressed layer ends in the middle")


def _unzstd(pieces: Iterator[bytes]) -> Iterator[bytes]:
    import zstandard

    inflate = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj(
        read_across_frames=True
    )
    for piece in pieces:
        output = inflate.decompress(piece)
        if output:
            yield output


def _plainly(pieces: Iterator[bytes], make: Callable[[], object]) -> Iterator[bytes]:
    inflate = make()
    for piece in pieces:
        while piece:
            if inflate.eof:  # type: ignore[attr-defined]
                inflate = make()
            yield inflate.decompress(piece)  # type: ignore[attr-defined]
            piece = inflate.unused_data  # type: ignore[attr-defined]
    if not inflate.eof:  # type: ignore[attr-defined]
        raise CorruptState("a compressed layer ends in the middle")
