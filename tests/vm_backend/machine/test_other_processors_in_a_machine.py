"""Programs of another processor in a machine, where nobody can install an emulator of them."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.requirements import need_tool

if TYPE_CHECKING:
    from support.cli import Cli

pytestmark = [
    pytest.mark.vm,
    pytest.mark.network,  # their busybox is a mirror's package
    pytest.mark.skipif(platform.machine() != "x86_64", reason="arm64 is this machine's own"),
]

RULES = "/proc/sys/fs/binfmt_misc"
# As such images do that are made for it.
INSTALL = rf"""
set -e
cat >/tmp/emulator
chmod +x /tmp/emulator
mount -t binfmt_misc binfmt_misc {RULES}
start='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
echo ":arm:M::$start:$mask:/tmp/emulator:F" >{RULES}/register
"""


def test_a_container_sets_an_emulator_up_for_those_that_follow(machine: Cli) -> None:
    emulator = Path(need_tool("qemu-aarch64-static")).read_bytes()
    machine("bootstrap", "busybox", "--arch", "arm64", "-t", "arm", timeout=240)
    words = ("build", "--platform", "linux/arm64", "--network", "none", "-t", "made", "-")
    refused = machine(*words, input=b"FROM arm\nRUN uname -m >/said\n", check=False, timeout=120)

    assert refused.returncode == 1
    assert refused.stderr.endswith(
        "\nprograms of linux/arm64 run on linux/amd64 where there is an emulator of them "
        "(until the machine stops: wherry run --rm --privileged --userns host "
        "tonistiigi/binfmt --install arm64)\n"
    )
    machine("run", "--rm", "-i", "--privileged", "--userns", "host", "busybox", "sh", "-c", INSTALL,
            input=emulator, timeout=120)  # fmt: skip
    try:
        machine(*words, input=b"FROM arm\nRUN uname -m >/said\n", timeout=120)
        run = machine("run", "--rm", "--platform", "linux/arm64", "made", "cat", "/said")
    finally:
        machine("machine", "ssh", "default", "sh", "-c", f"echo -1 >{RULES}/arm")

    assert run.stdout == "aarch64\n"
