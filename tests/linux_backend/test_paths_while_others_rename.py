"""Paths with `..` on the way, while something else on the host is renamed all the time."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from support.layers import DIRECTORY, SYMLINK, entry, unpack
from wherry_linux.mounts import open_in_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.linux

UP = "../" * 30
MANY = 3000


@pytest.fixture
def unrest(tmp_path: Path) -> Iterator[None]:
    """Another process that renames a directory, and does nothing else."""
    names = [str(tmp_path / name) for name in ("one", "other")]
    os.mkdir(names[0])
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        while True:
            os.rename(*names)
            names.reverse()
    yield
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.usefixtures("unrest")
def test_a_path_in_a_container_is_found(tmp_path: Path) -> None:
    (tmp_path / "root/etc").mkdir(parents=True)
    root = os.open(tmp_path / "root", os.O_PATH)

    for _ in range(MANY):
        os.close(open_in_root(root, f"{UP}etc"))

    os.close(root)


@pytest.mark.usefixtures("unrest")
def test_a_layer_is_unpacked_through_its_links(tmp_path: Path) -> None:
    target = tmp_path / "layer"
    target.mkdir()
    below = "a/" * 20
    links = [
        (
            entry(f"real{number}", kind=DIRECTORY),
            entry(f"{below}{number}", kind=SYMLINK, linkname=f"{'../' * 20}real{number}"),
            entry(f"{below}{number}/file", b"1"),
        )
        for number in range(MANY)
    ]
    unpack(target, entry(below, kind=DIRECTORY), *(each for three in links for each in three))

    assert all((target / f"real{number}/file").read_bytes() == b"1" for number in range(MANY))
