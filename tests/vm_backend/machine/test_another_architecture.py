"""A machine of another architecture than the host's: it is emulated, and says so."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.guest import can_boot
from support.guest_images import guest_image
from support.machines import BOOT, inspect
from support.networks import fetched
from support.ports import free_port
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.world import World

pytestmark = [
    pytest.mark.vm,
    pytest.mark.network,
    pytest.mark.timeout(600),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="arm64 is this machine's own"),
    pytest.mark.skipif(not can_boot("arm64"), reason="needs qemu-system-aarch64"),
]

IMAGE = """
mkdir -p /tmp/root/bin && cp /usr/bin/busybox /tmp/root/bin/ &&
for name in sh uname cat sleep httpd mkdir; do ln -sf busybox /tmp/root/bin/$name; done &&
tar -C /tmp/root -c .
"""


def test_containers_of_arm64_run_on_amd64(own_world: World) -> None:
    wherry = own_world.wherry
    place = Path(own_world.directory)
    (place / "index.html").write_text("hello\n")
    port = free_port()

    wherry("machine", "init", "--image", guest_image("arm64"), "--share", str(place), timeout=BOOT)
    started = wherry("machine", "start", timeout=BOOT)
    archive = wherry("machine", "ssh", "default", "sh", "-c", IMAGE).output
    wherry("import", "-", "arm", input=archive, timeout=BOOT)
    ran = wherry("run", "--rm", "--network=none", "arm", "/bin/uname", "-m", timeout=BOOT)
    wherry(
        "run", "-d", "--name", "web", "-v", f"{place}:/w", "-p", f"127.0.0.1:{port}:80",
        "arm", "/bin/httpd", "-f", "-p", "80", "-h", "/w",
        timeout=BOOT,
    )  # fmt: skip
    wait_until(
        lambda: fetched(f"http://127.0.0.1:{port}/index.html") == "hello\n",
        Deadline(60, "the server"),
    )
    execed = wherry("exec", "web", "/bin/sh", "-c", "cat /w/index.html; exit 7", check=False)

    assert "the guest is for another kind of processor" in started.stderr
    assert inspect(wherry)["Accelerator"] == "tcg"
    assert ran.stdout == "aarch64\n"
    assert (execed.returncode, execed.stdout) == (7, "hello\n")
