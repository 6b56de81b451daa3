"""`stats` as containers come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.settings import OFFLINE

if TYPE_CHECKING:
    from support.cli import Cli


def test_stream_ends_with_the_container_that_it_is_about(wherry: Cli, busybox_image: str) -> None:
    wherry("run", "-d", "--name", "box", OFFLINE, busybox_image, "sleep", "1000")
    process = wherry.start("stats", "--format", "{{.Name}}", "box")
    assert process.stdout is not None
    assert process.stdout.readline() == b"box\n"

    wherry("rm", "-f", "box")
    _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors) == (0, b"")


def test_container_that_is_not_there_is_an_error(wherry: Cli) -> None:
    result = wherry("stats", "--no-stream", "nothing", check=False)

    assert result.returncode == 1
    assert "No such container: nothing" in result.stderr
