"""A gzip file that is written in pieces, each compressed or not, as it deserves (RFC 1952)."""

from __future__ import annotations

import struct
import zlib

# The next levels take half as long again for two or three percent.
_LEVEL = 3
# How much of a piece is tried, and what part of it may be left if it is worth the time.
_SAMPLE = 1 << 14
_WORTH = 0.95
# No name, no time, no file system.
_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


class GzipWriter:
    """One member: the same pieces make the same bytes."""

    def __init__(self) -> None:
        self._begun = False
        self._checksum = 0
        self._size = 0

    def piece(self, data: bytes) -> bytes:
        """What `data` becomes in the file; the better, the larger it is."""
        self._checksum = zlib.crc32(data, self._checksum)
        self._size += len(data)
        sample = data[:_SAMPLE]
        is_worth_it = len(zlib.compress(sample, 1)) < len(sample) * _WORTH
        deflate = zlib.compressobj(_LEVEL if is_worth_it else 0, zlib.DEFLATED, -zlib.MAX_WBITS)
        made = deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)
        return self._header() + made

    def end(self) -> bytes:
        """What follows the last piece."""
        last = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS).flush()
        check = struct.pack("<II", self._checksum, self._size & 0xFFFF_FFFF)
        return self._header() + last + check

    def _header(self) -> bytes:
        header, self._begun = b"" if self._begun else _HEADER, True
        return header
