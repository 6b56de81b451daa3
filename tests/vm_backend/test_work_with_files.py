"""The work with files that `wherry machine bench` times, on this host's own disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wherry_vm.filework import measure, prepare

if TYPE_CHECKING:
    from pathlib import Path


def test_each_kind_of_work_is_done_and_timed(tmp_path: Path) -> None:
    prepare(str(tmp_path))

    found = measure(str(tmp_path))

    assert all(value > 0 for value, _ in found.values())
    assert {unit for _, unit in found.values()} == {"1/s", "MB/s"}
    # What was created has been removed; what was written is as large as what was read.
    assert list((tmp_path / "made").iterdir()) == []
    assert (tmp_path / "written").stat().st_size == (tmp_path / "large").stat().st_size
