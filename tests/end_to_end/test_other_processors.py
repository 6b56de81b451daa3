"""Programs of another processor run where their emulator is installed, whoever asks for it."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest

from support.building import NO_NETWORK, build, context, run
from support.requirements import need_tool
from support.settings import as_single_uid, on_linux

if TYPE_CHECKING:
    from support.building import Build
    from support.cli import Cli

__all__ = ["build", "context"]

pytestmark = [
    pytest.mark.network,  # their busybox is a mirror's package
    pytest.mark.skipif(platform.machine() != "x86_64", reason="arm64 is this machine's own"),
]

TEXT = """\
FROM arm
RUN uname -m > /said && exec -a echo /bin/busybox called >> /said
RUN ["/bin/echo", "hello"]
"""


def _bootstrap(wherry: Cli) -> None:
    need_tool("qemu-aarch64-static")
    wherry("bootstrap", "busybox", "--arch", "arm64", "-t", "arm", timeout=240)


@on_linux
def test_they_run_in_builds_and_containers(wherry: Cli, build: Build) -> None:
    _bootstrap(wherry)

    built = build(TEXT, "--platform", "linux/arm64", "-t", "made")

    assert "hello" in built.stderr
    assert run(wherry, "made", "cat", "/said") == "aarch64\ncalled\n"
    wherry("run", "-d", "--name", "arm", NO_NETWORK, "made", "sleep", "1000")
    assert wherry("exec", "arm", "uname", "-m").stdout == "aarch64\n"
    rules = wherry(
        *("exec", "arm", "sh", "-c", "echo -1 > /proc/sys/fs/binfmt_misc/status"), check=False
    )
    assert rules.returncode == 1


@as_single_uid
def test_they_run_for_a_user_with_one_id(wherry: Cli, build: Build) -> None:
    _bootstrap(wherry)

    build(TEXT, "--platform", "linux/arm64", "-t", "made")

    assert run(wherry, "made", "cat", "/said") == "aarch64\ncalled\n"
