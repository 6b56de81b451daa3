"""Digests of files for cache keys: each byte counts, however large a file is."""

from __future__ import annotations

import os
import sys
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from wherry.builder.contents import content_digest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="images are built on Linux only")

MEGABYTE = 1 << 20


def digest(file: Path) -> str:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return content_digest(descriptor)
    finally:
        os.close(descriptor)


def test_a_file_is_told_by_the_digest_of_what_it_holds(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in (b"", b"a", os.urandom(3 * MEGABYTE + 1)):
        file.write_bytes(content)
        assert digest(file) == sha256(content).hexdigest()


def test_each_byte_of_a_very_large_file_counts(tmp_path: Path) -> None:
    file = tmp_path / "file"
    size = 65 * MEGABYTE + 3
    found = set()
    with file.open("wb") as made:
        made.truncate(size)
        for position in (0, 16 * MEGABYTE - 1, 16 * MEGABYTE, 40 * MEGABYTE, size - 1):
            made.seek(position)
            made.write(b"x")
            made.flush()
            found.add(digest(file))
        made.truncate(size - 1)
        found.add(digest(file))

    assert len(found) == 6


def test_the_digests_of_its_parts_are_no_file_that_is_taken_for_it(tmp_path: Path) -> None:
    large, parts = tmp_path / "large", tmp_path / "parts"
    with large.open("wb") as made:
        made.truncate(80 * MEGABYTE)
    parts.write_bytes(sha256(bytes(16 * MEGABYTE)).digest() * 5)

    assert digest(large) != digest(parts)
    assert digest(large).endswith(digest(parts))
