"""Environment, directory, user and file system of a container's process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.busybox import busybox_archive
from support.settings import OFFLINE

if TYPE_CHECKING:
    from support.cli import Cli


def test_environment_is_the_images_and_the_command_lines(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", OFFLINE, "--rm", "-e", "A=1", "-e", "B=two words", busybox_image, "env")

    assert {"A=1", "B=two words", "HOME=/root"} <= set(result.lines)
    assert "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in result.lines
    assert not [line for line in result.lines if line.startswith("WHERRY")]


def test_variable_without_a_value_comes_from_the_host(wherry: Cli, busybox_image: str) -> None:
    argv = ("run", OFFLINE, "--rm", "-e", "THERE", "-e", "NOT_THERE", busybox_image, "env")

    lines = wherry(*argv, env={"THERE": "yes"}).lines

    assert "THERE=yes" in lines
    assert not [line for line in lines if line.startswith("NOT_THERE")]


def test_environment_file_is_read_as_it_is(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    Path(host_dir, "env").write_text('# a comment\n\nQUOTED="kept"\nPLAIN=a b\n')

    lines = wherry("run", OFFLINE, "--rm", "--env-file", "env", busybox_image, "env").lines

    assert {'QUOTED="kept"', "PLAIN=a b"} <= set(lines)


def test_working_directory_is_made(wherry: Cli, busybox_image: str) -> None:
    assert (
        wherry("run", OFFLINE, "--rm", "-w", "/some/where", busybox_image, "pwd").stdout
        == "/some/where\n"
    )


@pytest.mark.parametrize(
    ("user", "identity"),
    [
        ("www-data", "33:33"),
        ("33", "33:33"),
        ("33:100", "33:100"),
        ("www-data:users", "33:100"),
        ("1234", "1234:0"),
        ("1234:4321", "1234:4321"),
    ],
)
def test_user_is_looked_up_in_the_image(
    wherry: Cli, busybox_image: str, user: str, identity: str
) -> None:
    result = wherry(
        "run", OFFLINE, "--rm", "-u", user, busybox_image, "sh", "-c", "echo $(id -u):$(id -g)"
    )

    assert result.stdout.strip() == identity


def test_user_that_the_image_does_not_have_is_125(wherry: Cli, busybox_image: str) -> None:
    result = wherry(
        "run", OFFLINE, "--rm", "-u", "nobody-of-that-name", busybox_image, "true", check=False
    )

    assert result.returncode == 125 or result.returncode == 126
    assert "nobody-of-that-name" in result.stderr


def test_image_says_what_runs_and_as_whom(wherry: Cli, busybox_image: str) -> None:
    config = {
        "Entrypoint": ["echo", "entry"],
        "Cmd": ["default"],
        "Env": ["FROM_IMAGE=1", "PATH=/bin"],
        "User": "33",
        "WorkingDir": "/var",
    }
    wherry("load", input=busybox_archive("configured:1", config=config))

    assert wherry("run", OFFLINE, "--rm", "configured:1").stdout == "entry default\n"
    assert wherry("run", OFFLINE, "--rm", "configured:1", "other").stdout == "entry other\n"
    script = ("--entrypoint", "sh", "configured:1", "-c", "id -u; pwd; echo $FROM_IMAGE")
    assert wherry("run", OFFLINE, "--rm", *script).lines == ["33", "/var", "1"]


def test_read_only_container_cannot_write(wherry: Cli, busybox_image: str) -> None:
    result = wherry(
        "run", OFFLINE, "--rm", "--read-only", busybox_image, "touch", "/file", check=False
    )

    assert result.returncode == 1
    assert "Read-only file system" in result.stderr


def test_read_only_container_writes_to_its_tmpfs(wherry: Cli, busybox_image: str) -> None:
    argv = ("--read-only", "--tmpfs", "/scratch", busybox_image, "sh", "-c", "echo x >/scratch/f")

    wherry("run", OFFLINE, "--rm", *argv)


def test_what_one_container_writes_another_does_not_see(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "--rm", busybox_image, "touch", "/mine")

    assert wherry("run", OFFLINE, "--rm", busybox_image, "ls", "/").stdout.count("mine") == 0
