"""A process that joins a container gets pipes, whatever its caller's streams are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE, on_linux

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.cli import Cli


@pytest.fixture
def container(wherry: Cli, busybox_image: str) -> Iterator[str]:
    wherry("run", OFFLINE, "-d", "--name", "sleeper", busybox_image, "sleep", "1000")
    yield "sleeper"
    wherry("rm", "-f", "sleeper")


def test_file_that_output_goes_to_cannot_be_opened_anew(
    wherry: Cli, container: str, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    path.write_text("secret\n")
    script = "readlink /proc/self/fd/1; echo warning >&2"

    with path.open("ab") as log:
        process = wherry.start("exec", container, "sh", "-c", script, stdout=log, stderr=log)
        process.wait(timeout=60)

    secret, link, warning = path.read_text().splitlines()
    assert (secret, warning) == ("secret", "warning")
    assert link.startswith("pipe:")


def test_terminal_of_the_caller_stays_the_callers(wherry: Cli, container: str) -> None:
    master, slave = os.openpty()
    with open(slave, "r+b", buffering=0) as ours:
        script = 'found=$(for n in 0 1 2; do readlink /proc/$$/fd/$n; done); echo "$found" > /found'
        process = wherry.start(
            "exec", "-i", container, "sh", "-c", script, stdin=ours, stdout=ours, stderr=ours
        )
        process.wait(timeout=60)
    os.close(master)

    found = wherry("exec", container, "cat", "/found").lines
    assert len(found) == 3
    assert all(link.startswith("pipe:") for link in found)


def test_input_and_output_of_files_are_complete(
    wherry: Cli, container: str, tmp_path: Path
) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "in").write_bytes(content)

    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        process = wherry.start("exec", "-i", container, "cat", stdin=source, stdout=target)
        assert process.wait(timeout=60) == 0

    assert (tmp_path / "out").read_bytes() == content


@on_linux  # a machine's host ends the command itself, and says why
def test_program_learns_that_its_output_goes_nowhere(wherry: Cli, container: str) -> None:
    with open("/dev/full", "wb") as full:
        process = wherry.start("exec", container, "yes", stdout=full)
        assert process.wait(timeout=60) == 128 + 13


def test_process_left_in_the_background_does_not_keep_exec(
    wherry: Cli, container: str, tmp_path: Path
) -> None:
    with (tmp_path / "out").open("wb") as target:
        process = wherry.start(
            "exec", container, "sh", "-c", "sleep 100 & echo ready", stdout=target
        )
        assert process.wait(timeout=60) == 0

    assert (tmp_path / "out").read_text() == "ready\n"
