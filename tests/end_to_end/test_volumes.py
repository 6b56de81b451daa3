"""Directories that a container shares with its host and with other containers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE

if TYPE_CHECKING:
    from support.cli import Cli


def test_bind_mount_shows_the_hosts_files(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    Path(host_dir, "greeting").write_text("hello\n")

    result = wherry(
        "run", OFFLINE, "--rm", "-v", f"{host_dir}:/host", busybox_image, "cat", "/host/greeting"
    )

    assert result.stdout == "hello\n"


@pytest.mark.parametrize(
    "option", ["-v=./sub:/host", "--mount=type=bind,source=./sub,target=/host"]
)
def test_relative_path_is_below_where_the_command_starts(
    wherry: Cli, busybox_image: str, host_dir: str, option: str
) -> None:
    Path(host_dir, "sub").mkdir(mode=0o755)
    Path(host_dir, "sub", "greeting").write_text("hello\n")

    result = wherry("run", OFFLINE, "--rm", option, busybox_image, "cat", "/host/greeting")

    assert result.stdout == "hello\n"


def test_file_written_by_root_inside_belongs_to_the_caller(
    wherry: Cli, busybox_image: str, host_dir: str
) -> None:
    wherry("run", OFFLINE, "--rm", "-v", f"{host_dir}:/host", busybox_image, "touch", "/host/made")

    assert Path(host_dir, "made").stat().st_uid == wherry.account.uid


def test_read_only_bind_mount_cannot_be_written(
    wherry: Cli, busybox_image: str, host_dir: str
) -> None:
    argv = ("-v", f"{host_dir}:/host:ro", busybox_image, "touch", "/host/file")

    result = wherry("run", OFFLINE, "--rm", *argv, check=False)

    assert result.returncode == 1
    assert "Read-only file system" in result.stderr
    assert list(Path(host_dir).iterdir()) == []


def test_v_makes_the_missing_directory_and_mount_refuses(
    wherry: Cli, busybox_image: str, host_dir: str
) -> None:
    wherry("run", OFFLINE, "--rm", "-v", f"{host_dir}/new:/host", busybox_image, "true")
    mount = f"type=bind,source={host_dir}/other,target=/host"
    refused = wherry("run", OFFLINE, "--rm", "--mount", mount, busybox_image, "true", check=False)

    assert Path(host_dir, "new").is_dir()
    assert refused.returncode == 125
    assert "does not exist" in refused.stderr


def test_named_volume_outlives_its_containers(wherry: Cli, busybox_image: str) -> None:
    keep = ("-v", "kept:/data", busybox_image)

    wherry("run", OFFLINE, "--rm", *keep, "sh", "-c", "echo still here >/data/file")

    assert wherry("run", OFFLINE, "--rm", *keep, "cat", "/data/file").stdout == "still here\n"
    assert wherry("volume", "ls", "-q").lines == ["kept"]


def test_new_volume_starts_with_what_the_image_has_there(wherry: Cli, busybox_image: str) -> None:
    result = wherry(
        "run", OFFLINE, "--rm", "-v", "copied:/etc", busybox_image, "cat", "/etc/passwd"
    )

    assert result.stdout.startswith("root:")


def test_anonymous_volume_goes_with_its_container(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "--rm", "-v", "/data", busybox_image, "touch", "/data/file")

    assert wherry("volume", "ls", "-q").stdout == ""


def test_volume_in_use_cannot_be_removed(wherry: Cli, busybox_image: str) -> None:
    wherry("create", OFFLINE, "--name", "user", "-v", "used:/data", busybox_image, "true")

    result = wherry("volume", "rm", "used", check=False)

    assert result.returncode == 1
    assert "used" in result.stderr
    assert "in use" in result.stderr


def test_volumes_of_another_container_are_there(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "--name", "first", "-v", "/data", busybox_image, "touch", "/data/file")

    assert wherry(
        "run", OFFLINE, "--rm", "--volumes-from", "first", busybox_image, "ls", "/data"
    ).stdout == ("file\n")


@pytest.mark.parametrize("size", ["1m"])
def test_tmpfs_has_its_size(wherry: Cli, busybox_image: str, size: str) -> None:
    script = "dd if=/dev/zero of=/t/f bs=1k count=2000"
    argv = ("--tmpfs", f"/t:size={size}", busybox_image, "sh", "-c", script)

    result = wherry("run", OFFLINE, "--rm", *argv, check=False)

    assert result.returncode == 1
    assert "No space left on device" in result.stderr
