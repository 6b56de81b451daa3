"""Layers unpacked by a user who has not all ids."""

from __future__ import annotations

import os
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

from support.layers import DIRECTORY, SYMLINK, entry, unpack
from wherry_linux.constants import CLONE_NEWNS, CLONE_NEWUSER
from wherry_linux.userns import in_child

if TYPE_CHECKING:
    from pathlib import Path

    from support.layers import Entry
    from wherry.oci.runtime_spec import IDMapping

pytestmark = pytest.mark.linux

BASE = 200_000


def unpack_with_ids(root: Path, count: int, *entries: Entry) -> list[str]:
    """Unpack where root is BASE and there are `count` ids; the warnings."""
    if os.geteuid():
        pytest.skip("only root can map ids that are not its own")
    os.chown(root, BASE, BASE)
    # The child has to reach it: pytest keeps its directories to itself.
    descriptor = os.open(root, os.O_RDONLY)
    maps: list[IDMapping] = [{"containerID": 0, "hostID": BASE, "size": count}]

    def work() -> list[str]:
        from pathlib import Path

        os.fchdir(descriptor)
        return unpack(Path(), *entries)[1]

    try:
        warnings: list[str] = in_child(work, CLONE_NEWNS | CLONE_NEWUSER, (maps, maps))
    finally:
        os.close(descriptor)
    return warnings


def test_ids_that_are_mapped_are_kept(tmp_path: Path) -> None:
    warnings = unpack_with_ids(
        tmp_path, 65536, entry("f", b"1", uid=1000, gid=50, mode=0o4755), entry(".wh.gone")
    )

    found = (tmp_path / "f").stat()
    assert (found.st_uid, found.st_gid) == (BASE + 1000, BASE + 50)
    assert stat.S_IMODE(found.st_mode) == 0o4755
    assert (tmp_path / "gone").lstat().st_rdev == 0
    assert warnings == []


def test_ids_beyond_the_range_are_told_of_in_one_line_and_no_crash(tmp_path: Path) -> None:
    warnings = unpack_with_ids(
        tmp_path,
        65536,
        entry("home", kind=DIRECTORY, uid=1_000_000, gid=7),
        entry("home/f", b"1", uid=1_000_000, gid=1_000_000),
        entry("home/l", kind=SYMLINK, linkname="f", uid=1_000_000),
    )

    (warning,) = warnings
    assert warning.startswith("home/f (1000000:1000000) and 2 more: belongs to an id beyond")
    assert "/etc/subuid" in warning
    assert ((tmp_path / "home").stat().st_uid, (tmp_path / "home").stat().st_gid) == (
        BASE,
        BASE + 7,
    )


@pytest.mark.parametrize(("uid", "gid", "mode"), [(5, 0, 0o2755), (0, 5, 0o4755), (5, 5, 0o755)])
def test_file_that_becomes_roots_does_not_run_as_root_for_it(
    tmp_path: Path, uid: int, gid: int, mode: int
) -> None:
    warnings = unpack_with_ids(tmp_path, 1, entry("f", b"1", uid=uid, gid=gid, mode=0o6755))

    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode
    assert (tmp_path / "f").stat().st_uid == BASE
    assert len(warnings) == 1
    assert "single id" in warnings[0]


def test_devices_are_left_out_with_one_warning(tmp_path: Path) -> None:
    warnings = unpack_with_ids(
        tmp_path,
        65536,
        entry("null", kind=tarfile.CHRTYPE, device=(1, 3)),
        entry("sda", kind=tarfile.BLKTYPE, device=(8, 0)),
    )

    assert warnings == ["null and 1 more: the device node is left out: only root can make one"]
    assert list(tmp_path.iterdir()) == []


def test_capabilities_of_files_are_kept(tmp_path: Path) -> None:
    capability = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
    unpack_with_ids(
        tmp_path,
        65536,
        entry("ping", b"1", pax={"SCHILY.xattr.security.capability": capability.decode("latin-1")}),
    )

    # Seen from outside it says in which namespace it counts (capabilities(7), version 3).
    assert len(os.getxattr(tmp_path / "ping", "security.capability")) == 24
