"""Directories of the host in containers of a machine, by what their users see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from support.cli import Cli

pytestmark = pytest.mark.vm


def test_a_container_reads_and_writes_the_host_s_files(machine: Cli, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("from the host\n")
    script = "cat given && echo from the container > made && ln -s given link && mkdir -p a/b"

    result = machine(
        "run", "--rm", "-v", f"{tmp_path}:/w", "-w", "/w", "busybox", "sh", "-c", script
    )

    assert result.stdout == "from the host\n"
    assert (tmp_path / "made").read_text() == "from the container\n"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a" / "b").is_dir()


def test_an_edit_between_two_commands_is_seen_by_the_second(machine: Cli, tmp_path: Path) -> None:
    for content in ("one", "two", "six"):
        (tmp_path / "file").write_text(content)

        result = machine("run", "--rm", "-v", f"{tmp_path}:/w", "busybox", "cat", "/w/file")

        assert result.stdout == content


def test_an_owner_that_a_container_gives_is_kept(machine: Cli, tmp_path: Path) -> None:
    bind = f"{tmp_path}:/w"
    before = tmp_path.stat().st_uid

    machine("run", "--rm", "-v", bind, "busybox", "chown", "-R", "70:71", "/w")
    script = "touch /w/new && stat -c %u:%g /w /w/new"
    result = machine("run", "--rm", "-v", bind, "busybox", "sh", "-c", script)

    assert result.lines == ["70:71", "70:71"]
    assert tmp_path.stat().st_uid == before


def test_v_makes_what_is_missing_and_mount_does_not(machine: Cli, tmp_path: Path) -> None:
    machine("run", "--rm", "-v", f"{tmp_path}/made:/w", "busybox", "true")
    assert (tmp_path / "made").is_dir()

    mount = f"type=bind,source={tmp_path}/missing,target=/w"
    result = machine("run", "--rm", "--mount", mount, "busybox", "true", check=False)

    assert result.returncode == 125
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("through", ["", "link"])
def test_a_path_in_no_share_is_an_error_that_says_what_to_do(
    machine: Cli, tmp_path: Path, through: str
) -> None:
    source = "/usr/share"
    if through:
        (tmp_path / through).symlink_to(source)
        source = str(tmp_path / through)

    result = machine("run", "-v", f"{source}:/w", "busybox", "true", check=False)

    assert result.returncode == 125
    assert f"{source} is in no directory that machine default shares" in result.stderr
    assert "wherry machine set" in result.stderr
    assert machine("ps", "--all", "--quiet").lines == []


def test_a_share_whose_sshfs_was_killed_is_there_for_the_next_command(
    machine: Cli, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("content\n")
    read = ("run", "--rm", "-v", f"{tmp_path}:/w", "busybox", "cat", "/w/file")
    for _ in range(2):
        machine("machine", "ssh", "default", "killall", "-9", "sshfs")
        # One that is quicker than the news of it has an error, and never nothing.
        wait_until(lambda: machine(*read, check=False, timeout=120).stdout == "content\n",
                   Deadline(60, "the share"))  # fmt: skip


def test_a_volume_may_be_a_directory_of_the_host(machine: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content\n")
    options = ("-o", "type=none", "-o", "o=bind", "-o", f"device={tmp_path}")
    machine("volume", "create", *options, "here")
    elsewhere = ("-o", "type=none", "-o", "o=bind", "-o", "device=/usr/share")
    refused = machine("volume", "create", *elsewhere, "there", check=False)

    result = machine("run", "--rm", "-v", "here:/w", "busybox", "cat", "/w/file")

    assert result.stdout == "content\n"
    assert refused.returncode == 1
    assert "/usr/share is in no directory that machine default shares" in refused.stderr
