"""A container may nest directories deeper than paths, descriptors or our own calls can go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.cli import Cli

_SCRIPT = (
    "i=0; while [ $i -lt 1200 ]; do mkdir deep; cd deep; i=$((i+1)); done;"
    " head -c 1000000 /dev/zero > f"
)


@pytest.fixture
def deep(wherry: Cli, busybox_image: str) -> Iterator[str]:
    """A container with a file that no path leads to, at the end of 1200 directories."""
    wherry("run", OFFLINE, "--name", "deep", busybox_image, "sh", "-c", _SCRIPT)
    yield "deep"
    wherry("rm", "deep", timeout=120)


def test_what_it_occupies_is_counted(wherry: Cli, deep: str) -> None:
    size = int(wherry("inspect", "-s", "-f", "{{.SizeRw}}", deep).stdout)

    assert 1_000_000 <= size < 1_100_000
    assert "1MB" in wherry("ps", "-as", "--format", "{{.Size}}").stdout
    assert wherry("system", "df").returncode == 0


def test_what_cannot_be_read_is_told_in_one_line(wherry: Cli, deep: str) -> None:
    commands = (("cp", "deep:/deep", "-"), ("export", deep), ("diff", deep), ("commit", deep))
    for words in commands:
        result = wherry(*words, check=False)

        assert result.returncode == 1
        assert result.stderr == "wherry: directories are nested too deeply\n"
    assert wherry("ps", "-a", "--format", "{{.Names}}").stdout == f"{deep}\n"
