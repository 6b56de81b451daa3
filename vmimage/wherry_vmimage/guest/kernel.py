"""The kernel of a package, in the form in which QEMU boots it fastest.

On x86 that is the ELF file inside the bzImage, started by PVH: neither firmware's slow
reading nor decompression in the guest. On arm64 it is the Image, which Debian ships.
"""

from __future__ import annotations

import lzma
import struct

from wherry.errors import CorruptState, Unsupported
from wherry_vmimage.guest.lz4 import LZ4_MAGIC, decompress_lz4

_ELF = b"\x7fELF"
_XZ = b"\xfd7zXZ\0"
_ZSTD = b"\x28\xb5\x2f\xfd"

# The x86 boot protocol (Documentation/arch/x86/boot.rst); the payload since its version 2.08.
_SETUP_SECTORS_AT = 0x1F1
_BZIMAGE_MAGIC_AT = 0x202
_PAYLOAD_AT = 0x248
_SECTOR = 512

# Documentation/arch/arm64/booting.rst
_ARM64_MAGIC_AT = 56


def bootable_kernel(content: bytes) -> bytes:
    """What `-kernel` shall be, of a package's vmlinuz. Raises CorruptState or Unsupported."""
    if content[_BZIMAGE_MAGIC_AT : _BZIMAGE_MAGIC_AT + 4] == b"HdrS":
        return _vmlinux(content)
    if content[_ARM64_MAGIC_AT : _ARM64_MAGIC_AT + 4] == b"ARM\x64":
        return content
    raise Unsupported("the kernel is neither a bzImage nor an arm64 Image")


def _vmlinux(content: bytes) -> bytes:
    sectors = content[_SETUP_SECTORS_AT] or 4
    offset, size = struct.unpack_from("<II", content, _PAYLOAD_AT)
    start = (sectors + 1) * _SECTOR + offset
    payload = content[start : start + size]
    if len(payload) != size:
        raise CorruptState("the kernel ends within its payload")
    kernel = _decompressed(payload)
    if not kernel.startswith(_ELF):
        raise CorruptState("the kernel's payload is not an ELF file")
    return kernel


def _decompressed(payload: bytes) -> bytes:
    """The payload, which is followed by its size unless its format tells that."""
    import zstandard

    try:
        if payload.startswith(_ZSTD):
            return zstandard.ZstdDecompressor().decompressobj().decompress(payload)
        if payload.startswith(_XZ):
            return lzma.LZMADecompressor().decompress(payload)
        if payload.startswith(LZ4_MAGIC):
            return decompress_lz4(payload[:-4])
    except (zstandard.ZstdError, lzma.LZMAError) as error:
        raise CorruptState(f"the kernel's payload is damaged: {error}") from error
    raise Unsupported("the kernel is compressed in a way that is not known here")
