"""Files whose names a user has given: whole or not at all, and never in place of a device."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest

from wherry.files import Draft, write_asked

if TYPE_CHECKING:
    from pathlib import Path

if sys.platform == "win32":
    pytest.skip("Windows has other devices and links", allow_module_level=True)


def write(path: str, content: bytes) -> None:
    with Draft(path) as descriptor:
        os.write(descriptor, content)


def test_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    with Draft(str(path)) as descriptor:
        os.write(descriptor, b"new")
        assert path.read_bytes() == b"old"

    assert path.read_bytes() == b"new"


def test_file_stays_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    with pytest.raises(ZeroDivisionError), Draft(str(path)):
        raise ZeroDivisionError

    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_link_stays_and_leads_to_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("made")

    write(str(tmp_path / "link"), b"new")
    write_asked(str(tmp_path / "dangling"), b"more")

    assert os.readlink(tmp_path / "link") == "file"
    assert os.readlink(tmp_path / "dangling") == "made"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert (tmp_path / "made").read_bytes() == b"more"


@pytest.mark.parametrize("is_small", [False, True])
def test_pipe_gets_what_is_written(tmp_path: Path, is_small: bool) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    (write_asked if is_small else write)(str(path), b"content")

    assert os.read(reader, 100) == b"content"
    assert stat.S_ISFIFO(path.stat().st_mode)
    os.close(reader)


@pytest.mark.parametrize("is_small", [False, True])
def test_device_stays_a_device(tmp_path: Path, is_small: bool) -> None:
    # A terminal of our own: a mistake must not cost the host one of its devices.
    master, slave = os.openpty()
    link = tmp_path / "link"
    link.symlink_to(os.ttyname(slave))
    before = os.stat(os.ttyname(slave))

    (write_asked if is_small else write)(str(link), b"content")

    assert os.read(master, 100) == b"content"
    assert os.path.samestat(os.stat(os.ttyname(slave)), before)
    assert link.is_symlink()
    os.close(slave)
    os.close(master)
