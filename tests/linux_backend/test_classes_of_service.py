"""`linux.intelRdt` as directories and lines of resctrl, which few machines have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from wherry.errors import Conflict, NotFound, UsageError
from wherry_linux import resctrl

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("rdt", "lines"),
    [
        ({}, []),
        ({"l3CacheSchema": "L3:0=7f0;1=1f"}, ["L3:0=7f0;1=1f"]),
        ({"memBwSchema": "MB:0=20"}, ["MB:0=20"]),
        (
            {"l3CacheSchema": "L3:0=f\nMB:0=10", "memBwSchema": "MB:0=20"},
            ["L3:0=f", "MB:0=20"],
        ),
        (
            {"l3CacheSchema": "L3:0=f", "schemata": ["L2:0=f", "MB:0=70"]},
            ["L3:0=f", "L2:0=f", "MB:0=70"],
        ),
    ],
)
def test_schemata_are_lines_in_the_order_of_the_specification(rdt: Any, lines: list[str]) -> None:
    assert resctrl.schemata_of(rdt) == lines


@pytest.mark.parametrize(
    ("line", "holds"),
    [("L3:0=7f0", True), ("L3:1=1f;0=07f0", True), ("L3:0=1", False), ("L2:0=7f0", False)],
)
def test_class_is_compared_by_its_domains(line: str, holds: bool) -> None:
    assert resctrl.holds("    MB:0=100;1=100\n    L3:0=7f0;1=01f\n", line) is holds


@pytest.mark.parametrize(
    ("rdt", "reason"),
    [
        ({"closID": "../x"}, "not the name of a directory"),
        ({"memBwSchema": "L3:0=1"}, "does not start with MB:"),
        ({"memBwSchema": "MB:0=1\nMB:1=2"}, "more than one line"),
    ],
)
def test_contradiction_is_refused(rdt: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        resctrl.check(rdt)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A directory with the files of a class that somebody made."""
    for name in ("mon_groups",):
        (tmp_path / "gold" / name).mkdir(parents=True)
    (tmp_path / "gold/schemata").write_text("L3:0=f\n")
    (tmp_path / "gold/tasks").touch()
    return tmp_path


def test_process_joins_a_class_that_is_there(top: Path) -> None:
    rdt: Any = {"closID": "gold", "l3CacheSchema": "L3:0=f"}

    assert resctrl.join(rdt, "c1", 12, str(top)) == []

    assert (top / "gold/tasks").read_text() == "12\n"


def test_class_with_other_schemata_is_refused(top: Path) -> None:
    rdt: Any = {"closID": "gold", "l3CacheSchema": "L3:0=1"}

    with pytest.raises(Conflict, match="does not have L3:0=1"):
        resctrl.join(rdt, "c1", 12, str(top))


def test_class_that_is_not_there_is_made_only_with_schemata(top: Path) -> None:
    with pytest.raises(NotFound, match="no class of service silver"):
        resctrl.join({"closID": "silver"}, "c1", 12, str(top))

    assert not (top / "silver").exists()
