"""The power fails: what the disk has at that moment is whole, or is not there."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.busybox import busybox_archive
from support.requirements import need_tool
from support.settings import OFFLINE, as_root
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.cli import Cli

pytestmark = as_root

_FILES = {f"file-{number}": os.urandom(2000) for number in range(200)}


@contextlib.contextmanager
def mounted(image: str, target: str) -> Iterator[None]:
    """While the file system in the file `image` is mounted."""
    mount = subprocess.run(
        ["mount", "-o", "loop", image, target], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"needs loop devices: {mount.stderr.strip()}")
    try:
        yield
    finally:
        # The monitor of a container ends a moment after `run` has returned.
        wait_until(
            lambda: subprocess.run(["umount", target], check=False).returncode == 0,
            Deadline(60, f"{target} to be left"),
        )


def make_disk(disk: str) -> None:
    """An empty ext4 in a file."""
    subprocess.run(["truncate", "--size=128M", disk], check=True)
    subprocess.run([need_tool("mkfs.ext4"), "-q", disk], check=True)


def test_layer_that_is_there_when_the_power_fails_is_whole(
    wherry: Cli, wherry_root: str, host_dir: str
) -> None:
    disk, data = f"{host_dir}/disk", f"{wherry_root}/data"
    make_disk(disk)
    os.mkdir(data)
    with mounted(disk, data):
        os.chmod(data, 0o700)
        wherry("load", input=busybox_archive("busybox", files=_FILES))
        # What has not been written out by now would be lost.
        shutil.copyfile(disk, f"{host_dir}/survivor")

    with mounted(f"{host_dir}/survivor", data):
        found = Path(data, "layers", "sha256").glob("*/diff/file-*")
        assert {path.name: path.read_bytes() for path in found} == _FILES
        assert wherry("system", "check").lines == []
        assert wherry("run", "--rm", OFFLINE, "busybox", "echo", "ok").lines == ["ok"]


def test_what_was_made_before_the_power_fails_has_a_record(
    wherry: Cli, wherry_root: str, host_dir: str
) -> None:
    disk, data = f"{host_dir}/disk", f"{wherry_root}/data"
    make_disk(disk)
    os.mkdir(data)
    with mounted(disk, data):
        os.chmod(data, 0o700)
        wherry("load", input=busybox_archive("busybox"))
        wherry("create", "--name", "box", OFFLINE, "busybox", "true")
        wherry("volume", "create", "kept")
        for number in range(3):
            commit_names(f"{data}/{number}")
        shutil.copyfile(disk, f"{host_dir}/survivor")

    with mounted(f"{host_dir}/survivor", data):
        found = wherry("ps", "-a", "--format", "{{.Names}}")
        assert (found.lines, found.stderr) == (["box"], "")
        volumes = wherry("volume", "ls", "-q")
        assert (volumes.lines, volumes.stderr) == (["kept"], "")


def commit_names(path: str) -> None:
    """Have the disk's journal hold the names of all files, as it does every few seconds."""
    with open(path, "wb") as file:
        file.write(bytes(1 << 16))
        os.fsync(file.fileno())
