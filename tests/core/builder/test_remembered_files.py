"""Large files are not read for a cache key again, as long as they are what they were."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from wherry.builder.remembered import LARGE, Remembered

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="images are built on Linux only")


class Reader:
    """Counts how often a file is read."""

    count = 0

    def digest(self, path: str) -> str:
        remembered = Remembered(self._read)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            found = remembered.digest(descriptor)
        finally:
            os.close(descriptor)
        remembered.save()
        return found

    def _read(self, descriptor: int) -> str:
        self.count += 1
        return f"{os.fstat(descriptor).st_size} bytes, read {self.count} times"


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path / "world"))
    return Reader()


def test_a_file_that_was_left_alone_is_read_once(reader: Reader) -> None:
    old = os.path.realpath(sys.executable)
    status = os.stat(old)
    if status.st_size < LARGE or not status.st_ctime_ns % 1_000_000_000:
        pytest.skip("the interpreter is small, or its file system has whole seconds")

    assert reader.digest(old) == reader.digest(old)
    assert reader.count == 1


def test_a_file_that_may_still_be_written_to_is_read_each_time(
    reader: Reader, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(LARGE))

    reader.digest(str(file))
    reader.digest(str(file))

    assert reader.count == 2


def test_only_what_was_left_alone_is_known(reader: Reader, tmp_path: Path) -> None:
    old, file = os.path.realpath(sys.executable), tmp_path / "file"
    file.write_bytes(bytes(LARGE))
    found = reader.digest(old)
    reader.digest(str(file))

    def known(path: str) -> str:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return Remembered().known(descriptor)
        finally:
            os.close(descriptor)

    if os.stat(old).st_ctime_ns % 1_000_000_000:
        assert known(old) == found
    assert known(str(file)) == ""


def test_what_is_remembered_may_be_damaged_or_gone(reader: Reader, tmp_path: Path) -> None:
    kept = tmp_path / "world" / "data" / "build-cache" / "digests"
    for content in ("[", '{"a": 1}', "[]"):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(content)
        reader.digest(os.path.realpath(sys.executable))

    assert reader.count == 3
