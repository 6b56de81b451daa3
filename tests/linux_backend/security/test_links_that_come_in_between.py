"""A container can put a link in the place of what has just been made for it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from wherry.container.copy import change_mode, open_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """An open directory with `link`, which leads to the file `victim` outside of it."""
    victim = tmp_path / "victim"
    victim.touch(mode=0o600)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(victim)
    descriptor = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


def test_mode_of_what_a_link_leads_to_stays(directory: int) -> None:
    change_mode("link", 0o777, directory)


def test_mode_of_a_fifo_is_changed(directory: int) -> None:
    os.mkfifo("fifo", 0o600, dir_fd=directory)

    change_mode("fifo", 0o4640, directory)

    assert stat.S_IMODE(os.stat("fifo", dir_fd=directory).st_mode) == 0o4640


@pytest.mark.parametrize("name", ["link", "fifo"])
def test_what_is_no_file_is_not_opened(directory: int, name: str) -> None:
    os.mkfifo("fifo", 0o600, dir_fd=directory)

    with pytest.raises(OSError, match="No such device"):
        open_file(name, directory)
