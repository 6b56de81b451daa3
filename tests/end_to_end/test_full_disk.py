"""The disk fills up in the middle of a pull or a load: one line, and more space mends it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.busybox import busybox_archive
from support.registry import RegistryServer, make_image, registry
from support.settings import as_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.cli import Cli

__all__ = ["registry"]

pytestmark = as_root

FILES = {f"file-{number}": os.urandom(1 << 20) for number in range(3)}
ENOUGH = "64m"


@contextlib.contextmanager
def disk(target: str, size: str) -> Iterator[None]:
    """While there is a disk of `size` at `target`."""
    os.makedirs(target, mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", target], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", target], check=True)


def grow(target: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={ENOUGH}", target], check=True)


# 3 MiB that do not compress are fetched, and unpacked: each size ends in another step.
@pytest.mark.parametrize("size", ["4k", "32k", "1m", "2500k", "3200k", "4m", "5m", "6m"])
@pytest.mark.parametrize("command", ["pull", "load"])
def test_disk_that_is_full_is_one_line_and_no_damage(
    wherry: Cli, wherry_root: str, registry: RegistryServer, command: str, size: str
) -> None:
    name = f"{registry.host}/app:1"
    registry.put_image("app", "1", make_image(*({key: FILES[key]} for key in FILES)))
    archive = busybox_archive(name, files=FILES) if command == "load" else None
    argv = ("pull", "--quiet", name) if command == "pull" else ("load",)
    data = f"{wherry_root}/data"
    with disk(data, size):
        result = wherry(*argv, input=archive, check=False)

        lines = result.stderr.splitlines()
        assert result.returncode == 1
        assert "No space left on device" in lines[0]
        assert lines[0].startswith("wherry: cannot ")
        assert "the disk is full" in lines[-1]
        assert wherry("images", "-q").lines == []
        assert wherry("system", "check").lines == []

        grow(data)
        wherry(*argv, input=archive)

        assert wherry("images", "--format", "{{.Repository}}:{{.Tag}}").lines == [name]
        assert wherry("system", "check").lines == []
