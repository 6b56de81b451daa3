"""The kernel that QEMU is given, out of what a package has."""

from __future__ import annotations

import lzma
import struct
from typing import TYPE_CHECKING

import pytest
import zstandard

from wherry.errors import CorruptState, Unsupported
from wherry_vmimage.guest.kernel import bootable_kernel
from wherry_vmimage.guest.lz4 import LZ4_MAGIC, decompress_lz4

if TYPE_CHECKING:
    from collections.abc import Callable

KERNEL = b"\x7fELF" + bytes(range(256)) * 40


def bzimage(payload: bytes, sectors: int = 3) -> bytes:
    head = bytearray((sectors + 1) * 512)
    head[0x1F1] = sectors
    head[0x202:0x206] = b"HdrS"
    head[0x248:0x250] = struct.pack("<II", 100, len(payload))
    return bytes(head) + bytes(100) + payload + b"rest"


def lz4(content: bytes) -> bytes:
    """One block of literals only."""
    count = len(content) - 15
    block = b"\xf0" + b"\xff" * (count // 255) + bytes([count % 255]) + content
    return LZ4_MAGIC + struct.pack("<I", len(block)) + block


def with_size(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda content: compress(content) + struct.pack("<I", len(content))


@pytest.mark.parametrize(
    "compress",
    [
        with_size(zstandard.ZstdCompressor().compress),
        with_size(lambda content: lzma.compress(content, check=lzma.CHECK_CRC32)),
        with_size(lz4),
    ],
    ids=["zstd", "xz", "lz4"],
)
def test_kernel_is_unpacked_out_of_a_bzimage(compress: Callable[[bytes], bytes]) -> None:
    assert bootable_kernel(bzimage(compress(KERNEL))) == KERNEL


def test_arm64_image_stays_as_it_is() -> None:
    image = b"MZ".ljust(56, b"\0") + b"ARM\x64" + bytes(100)

    assert bootable_kernel(image) == image


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"#!/bin/sh", Unsupported, "neither a bzImage nor an arm64 Image"),
        (bzimage(b"unknown"), Unsupported, "compressed in a way"),
        (bzimage(b"\xfd7zXZ\0damaged"), CorruptState, "payload is damaged"),
        (bzimage(zstandard.ZstdCompressor().compress(b"no")), CorruptState, "not an ELF file"),
        (bzimage(b"x" * 1000)[:2500], CorruptState, "ends within its payload"),
    ],
)
def test_what_is_no_kernel_is_an_error(
    content: bytes, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bootable_kernel(content)


def frame(*blocks: bytes) -> bytes:
    return LZ4_MAGIC + b"".join(struct.pack("<I", len(block)) + block for block in blocks)


def test_lz4_match_may_overlap_what_it_makes() -> None:
    # Two literals, then 13 bytes from two back; then a literal at the end.
    assert (
        decompress_lz4(frame(b"\x29ab\x02\x00" + b"\x10c")) == b"ab" + b"abababababab"[:12] + b"ac"
    )


def test_lz4_blocks_follow_each_other() -> None:
    assert decompress_lz4(frame(b"\x10a", b"\x10b")) == b"ab"


@pytest.mark.parametrize("block", [b"\x10a\x05\x00", b"\x10a\x00\x00", b"\xf0", b"\x10a\x01"])
def test_damaged_lz4_is_an_error(block: bytes) -> None:
    with pytest.raises(CorruptState, match="LZ4"):
        decompress_lz4(frame(block))
