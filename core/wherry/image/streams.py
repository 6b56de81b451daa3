"""Layers that were made here: a directory of files, and what a tar stream of it has beside them.

    DATA/layers/sha256/<hex>/stream   the headers of the stream, each with the path and the size
                                      of the content that follows it; compressed

Such a layer has no blob. Its stream is put together again when somebody wants one, and its
digest is the diff id, or the files are not what they were.
"""

from __future__ import annotations

import os
import struct

from wherry.errors import CorruptState
from wherry.files import open_regular
from wherry.image.layers import layer_directory
from wherry.image.tar import BLOCK
from wherry.lean import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

STREAM = "stream"

_FRAME = struct.Struct("<IIQ")
_PIECE = 1 << 20
_FILE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)


class StreamNotes:
    """Takes down a stream, but for the contents of its files."""

    def __init__(self, path: str) -> None:
        from zlib import compressobj

        self._file = open(path, "xb")  # noqa: SIM115 - closed by close
        self._deflate = compressobj(1)

    def add(self, header: bytes, path: str = "", size: int = 0) -> None:
        """Bytes of the stream; after them `size` bytes of the file at `path`, filled to blocks."""
        name = os.fsencode(path) if size else b""
        frame = _FRAME.pack(len(header), len(name), size)
        self._file.write(self._deflate.compress(b"".join((frame, header, name))))

    def close(self) -> None:
        self._file.write(self._deflate.flush())
        self._file.close()


def has_stream(diff_id: str) -> bool:
    """Whether the layer's tar stream can be put together."""
    return os.path.exists(f"{layer_directory(diff_id)}/{STREAM}")


def write_stream(diff_id: str, write: Callable[[bytes], object]) -> None:
    """Put a layer's tar stream together. Raises CorruptState where it is another than it was.

    Only where the files can be read: where ids are those of containers.
    """
    digest = sha256()
    try:
        for piece in _pieces(layer_directory(diff_id)):
            digest.update(piece)
            write(piece)
    except (OSError, ValueError, struct.error) as error:
        raise CorruptState(f"the files of layer {diff_id} cannot be read: {error}") from error
    if f"sha256:{digest.hexdigest()}" != diff_id:
        raise CorruptState(f"the files of layer {diff_id} are not what they were")


def _pieces(directory: str) -> Iterator[bytes]:
    waiting: list[bytes] = []
    length = 0
    for header, name, size in _frames(f"{directory}/{STREAM}"):
        waiting.append(header)
        length += len(header)
        if size:
            for piece in _content(f"{directory}/diff/{os.fsdecode(name)}", size):
                waiting.append(piece)
                length += len(piece)
                if length >= _PIECE:
                    yield b"".join(waiting)
                    waiting, length = [], 0
            waiting.append(bytes(-size % BLOCK))
    yield b"".join(waiting)


def _content(path: str, size: int) -> Iterator[bytes]:
    descriptor = os.open(path, _FILE)
    try:
        while size:
            piece = os.read(descriptor, min(size, _PIECE))
            if not piece:
                raise ValueError(f"{path} is shorter than it was")
            size -= len(piece)
            yield piece
    finally:
        os.close(descriptor)


def _frames(path: str) -> Iterator[tuple[bytes, bytes, int]]:
    with open(open_regular(path), "rb", buffering=0) as file:
        content = _Inflated(file)
        while frame := content.take(_FRAME.size):
            header, name, size = _FRAME.unpack(frame)
            yield content.take(header), content.take(name), size


class _Inflated:
    """A zlib stream, read by count."""

    def __init__(self, file: Any) -> None:
        from zlib import decompressobj

        self._file = file
        self._inflate = decompressobj()
        self._buffer = b""
        self._position = 0

    def take(self, size: int) -> bytes:
        """So many bytes, or fewer at the end."""
        while len(self._buffer) - self._position < size:
            data = self._file.read(_PIECE)
            more = self._inflate.decompress(data) if data else self._inflate.flush()
            if not data and not more:
                break
            self._buffer = self._buffer[self._position :] + more
            self._position = 0
        taken = self._buffer[self._position : self._position + size]
        self._position += len(taken)
        return taken
