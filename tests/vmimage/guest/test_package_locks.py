"""The recorded packages of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wherry.errors import CorruptState, NotFound
from wherry_vmimage.guest.lock import Lock, read_lock
from wherry_vmimage.packages import Package

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = {
    "Package": "tool",
    "Version": "1:2+b1",
    "Architecture": "amd64",
    "SHA256": "ab" * 32,
    "Size": "12",
    "Filename": "pool/tool_2+b1.deb",
}


def test_lock_says_again_what_it_was_made_of(tmp_path: Path) -> None:
    package = Package({**FIELDS, "Depends": "lib"}, "http://mirror/debian")
    lock = Lock(architecture="amd64", suite="trixie", date=5, packages=(package,))
    (tmp_path / "lock").write_text(lock.to_json())

    read = read_lock(str(tmp_path / "lock"), ["http://other", "http://security"])

    assert (read.architecture, read.suite, read.date, read.python) == ("amd64", "trixie", 5, ())
    assert read.packages[0].fields == FIELDS
    assert read.packages[0].uris == (
        "http://other/pool/tool_2+b1.deb",
        "http://security/pool/tool_2+b1.deb",
    )


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1}'])
def test_what_is_no_lock_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content)

    with pytest.raises(CorruptState, match="lock is"):
        read_lock(str(tmp_path / "lock"), ["http://mirror"])


def test_missing_lock_is_an_error() -> None:
    with pytest.raises(NotFound, match="no such file: /nowhere"):
        read_lock("/nowhere", ["http://mirror"])
