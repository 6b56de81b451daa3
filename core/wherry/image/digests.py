"""Digests as image-spec has them: sha256, which is ours, and sha512, which others may use.

What an image's config says of its unpacked layers (diff ids) is sha256 in any case.
"""

from __future__ import annotations

import os

from wherry.errors import UsageError
from wherry.lean import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LENGTHS = {"sha256": 64, "sha512": 128}
"""The algorithms, and how many hexadecimal digits each has."""

_PIECE = 1 << 20
_HEX = frozenset("0123456789abcdef")


def split(digest: str) -> tuple[str, str]:
    """The algorithm and the hexadecimal digits of a digest. Raises UsageError."""
    algorithm, _, encoded = digest.partition(":")
    if LENGTHS.get(algorithm) != len(encoded) or not _HEX.issuperset(encoded):
        raise UsageError(f"unsupported digest {digest!r}: only sha256 and sha512 are known")
    return algorithm, encoded


def hasher(algorithm: str) -> Any:
    """What works out a digest piece by piece: `update`, `hexdigest`."""
    import hashlib

    return hashlib.new(algorithm)


def file_digest(descriptor: int, algorithm: str = "sha256") -> str:
    """The hexadecimal digits of what an open file has from where it is read on."""
    made = hasher(algorithm)
    while piece := os.read(descriptor, _PIECE):
        made.update(piece)
    return str(made.hexdigest())


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    """The digest of `content`."""
    if algorithm == "sha256":
        return f"sha256:{sha256(content).hexdigest()}"  # without loading hashlib
    made = hasher(algorithm)
    made.update(content)
    return f"{algorithm}:{made.hexdigest()}"
