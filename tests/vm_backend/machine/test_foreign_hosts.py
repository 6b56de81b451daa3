"""The host's side on systems that are not here: see support/foreign.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import foreign
from support.busybox import busybox_archive
from support.settings import OFFLINE

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.world import World

    Foreign = Callable[..., subprocess.CompletedProcess[bytes]]

pytestmark = [pytest.mark.vm, pytest.mark.network, pytest.mark.timeout(600)]


@pytest.fixture(params=["win32", "darwin"])
def there(own_world: World, request: pytest.FixtureRequest) -> Foreign:
    """`there("run", …)`: wherry on that system, with a machine of this test's own."""

    def run(*words: str, **more: object) -> subprocess.CompletedProcess[bytes]:
        process = own_world.wherry.spawn(
            [sys.executable, foreign.__file__, request.param, "-m", "wherry", *words],
            # What QEMU and which accelerator there are on the other system cannot be tried.
            env={
                "WHERRY_QEMU": str(_qemu()),
                "WHERRY_ACCEL": "tcg",
                "PROCESSOR_ARCHITECTURE": "AMD64",
            },
        )
        output, errors = process.communicate(more.get("input"), timeout=240)  # type: ignore[arg-type]
        return subprocess.CompletedProcess(words, process.returncode, output, errors)

    return run


def _qemu() -> Path:
    from support.requirements import need_tool

    return Path(need_tool("qemu-system-x86_64"))


def test_a_whole_run(there: Foreign, own_world: World) -> None:
    loaded = there("load", input=busybox_archive())
    ran = there(
        "run", "--rm", "-i", OFFLINE, "--cidfile", "cid", "busybox",
        "sh", "-c", "cat; echo err >&2; exit 6",
        input=b"to and fro\x00\xff",
    )  # fmt: skip
    copied = there("save", "-o", "saved.tar", "busybox")
    listed = there("ps", "-a", "--format", "{{.Names}}")
    there("machine", "stop")

    assert loaded.stdout == b"Loaded image: busybox:latest\n", loaded.stderr
    assert (ran.returncode, ran.stdout, ran.stderr) == (6, b"to and fro\x00\xff", b"err\n")
    assert len(Path(own_world.directory, "cid").read_text()) == 64
    assert copied.returncode == 0
    assert Path(own_world.directory, "saved.tar").stat().st_size > 1_000_000
    assert (listed.returncode, listed.stdout) == (0, b"")
