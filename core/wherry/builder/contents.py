"""What a file holds, as cache keys have it: a digest. That of a very large one is of its parts.

The parts' digests are taken side by side, on as many processors as there are.
"""

from __future__ import annotations

import os
import sys
from hashlib import sha256

from wherry.errors import Unsupported
from wherry.image.digests import file_digest

# A file that is larger has parts.
_VERY_LARGE = 64 << 20
_PART = 16 << 20
# Larger ones, which are allocated each time, keep threads from running side by side.
_PIECE = 1 << 18
_MOST_THREADS = 4


def content_digest(descriptor: int) -> str:
    """The digest of what an open file holds."""
    size = os.fstat(descriptor).st_size
    if size > _VERY_LARGE:
        return _digest_of_parts(descriptor, size)
    return file_digest(descriptor)


def _digest_of_parts(descriptor: int, size: int) -> str:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as threads:
        parts = threads.map(lambda start: _part(descriptor, start), range(0, size, _PART))
        digest = sha256(b"".join(parts)).hexdigest()
    # No file that holds these digests has this one.
    return f"parts:{digest}"


def _part(descriptor: int, start: int) -> bytes:
    if sys.platform == "win32":
        raise Unsupported("images are built on Linux only")
    content = sha256()
    buffer = memoryview(bytearray(_PIECE))
    end = start + _PART
    while read := os.preadv(descriptor, [buffer[: end - start]], start):
        content.update(buffer[:read])
        start += read
    return content.digest()
