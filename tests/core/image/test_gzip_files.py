"""Layers are gzip files, as every other tool reads them."""

from __future__ import annotations

import gzip
import os
import subprocess

import pytest

from wherry.image.gzip import GzipWriter

TEXT = b"the quick brown fox " * 60_000
NOISE = os.urandom(1 << 20)


def written(*pieces: bytes) -> bytes:
    writer = GzipWriter()
    return b"".join([*map(writer.piece, pieces), writer.end()])


@pytest.mark.parametrize(
    "pieces",
    [(), (b"",), (b"x",), (TEXT,), (NOISE,), (TEXT, NOISE, TEXT, b"", NOISE[:7])],
    ids=["nothing", "empty", "small", "text", "noise", "mixed"],
)
def test_others_read_what_was_written(pieces: tuple[bytes, ...]) -> None:
    content = written(*pieces)

    assert gzip.decompress(content) == b"".join(pieces)
    found = subprocess.run(["gzip", "-dc"], input=content, capture_output=True, check=True)
    assert found.stdout == b"".join(pieces)


def test_text_becomes_small_and_noise_hardly_larger() -> None:
    assert len(written(TEXT)) < len(TEXT) / 50
    assert len(written(NOISE)) < len(NOISE) * 1.001


def test_the_same_pieces_make_the_same_bytes() -> None:
    assert written(TEXT, NOISE) == written(TEXT, NOISE)
