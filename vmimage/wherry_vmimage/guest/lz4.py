"""LZ4's legacy frames, decompressed: what a kernel of Debian 12 is packed in."""

from __future__ import annotations

from wherry.errors import CorruptState

LZ4_MAGIC = b"\x02\x21\x4c\x18"

_MIN_MATCH = 4


def decompress_lz4(content: bytes) -> bytes:
    """The content of a legacy frame: blocks, each with its size before it. Raises CorruptState."""
    output = bytearray()
    position = len(LZ4_MAGIC)
    try:
        while position + 4 <= len(content):
            size = int.from_bytes(content[position : position + 4], "little")
            position += 4
            output += _block(content[position : position + size])
            position += size
    except IndexError:
        raise CorruptState("LZ4 data ends within a block") from None
    return bytes(output)


def _block(content: bytes) -> bytearray:
    """One block: literals and matches by turns, the last literals without a match."""
    output = bytearray()
    position, end = 0, len(content)
    while position < end:
        token = content[position]
        position += 1
        count = token >> 4
        if count == 15:
            count, position = _longer(content, count, position)
        output += content[position : position + count]
        position += count
        if position >= end:
            break
        distance = content[position] | content[position + 1] << 8
        position += 2
        count = token & 15
        if count == 15:
            count, position = _longer(content, count, position)
        count += _MIN_MATCH
        start = len(output) - distance
        if distance == 0 or start < 0:
            raise CorruptState("LZ4 data refers to what is not there")
        if distance >= count:
            output += output[start : start + count]
        else:
            # It overlaps what it makes: a pattern that goes on.
            pattern = output[start:]
            output += (pattern * (count // distance + 1))[:count]
    return output


def _longer(content: bytes, count: int, position: int) -> tuple[int, int]:
    """A count that goes on in further bytes, and the position after them."""
    while True:
        more = content[position]
        position += 1
        count += more
        if more != 255:
            return count, position
