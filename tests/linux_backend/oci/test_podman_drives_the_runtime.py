"""podman with wherry as its runtime."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from support.requirements import need_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.oci import Oci

    Podman = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.linux


@pytest.fixture
def podman(oci: Oci) -> Iterator[Podman]:
    """podman over a store of its own that has the bundle's root as the image `busybox`."""
    program = need_tool("podman")
    runtime = oci.script("wherry-oci", f'#!/bin/sh\nexec {sys.executable} -m wherry oci "$@"\n')
    short = tempfile.mkdtemp(prefix="wherry-")  # podman takes no more than 50 characters
    head = [
        program, "--runtime", runtime, "--root", str(oci.base / "store"),
        "--runroot", short, "--cgroup-manager", "cgroupfs",
    ]  # fmt: skip

    def call(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [*head, *words], capture_output=True, text=True, env=oci.environment, timeout=60,
            check=False,
        )  # fmt: skip
        assert not check or result.returncode == 0, result.stderr
        return result

    archive = shutil.make_archive(str(oci.base / "root"), "tar", oci.rootfs)
    call("import", archive, "busybox")
    yield call
    call("rm", "--all", "--force", "--time", "0")
    call("rmi", "--all", "--force")
    subprocess.run(["umount", oci.base / "store/overlay"], stderr=subprocess.DEVNULL, check=False)
    subprocess.run(["umount", oci.base / "store"], stderr=subprocess.DEVNULL, check=False)
    shutil.rmtree(short, ignore_errors=True)
    # podman looks after the groups of its cgroup version alone.
    for top in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        with contextlib.suppress(OSError):
            os.rmdir(f"{top}/libpod_parent")


# podman's own default may be more than this machine's root may give.
_OPTIONS = ("--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")


def test_podman_runs_a_program(podman: Podman) -> None:
    result = podman("run", "--rm", *_OPTIONS, "busybox", "sh", "-c", "echo hi; exit 6", check=False)

    assert (result.returncode, result.stdout) == (6, "hi\n")


def test_podman_execs_pauses_and_stops(podman: Podman) -> None:
    podman("run", "-d", "--name", "c", *_OPTIONS, "busybox", "sleep", "60")

    assert podman("exec", "c", "echo", "in").stdout == "in\n"
    assert podman("exec", "c", "sh", "-c", "exit 5", check=False).returncode == 5
    assert podman("exec", "c", "nope", check=False).returncode == 127
    podman("pause", "c")
    podman("unpause", "c")
    podman("kill", "c")
    assert podman("wait", "c").stdout == "137\n"


def test_podman_gives_a_terminal(podman: Podman) -> None:
    assert podman("run", "--rm", "-t", *_OPTIONS, "busybox", "tty").stdout == "/dev/pts/0\n"


def test_podman_mounts_a_volume_in_a_read_only_root(podman: Podman, oci: Oci) -> None:
    shared = oci.base / "shared"
    shared.mkdir()

    podman(
        "run", "--rm", "--read-only", "-v", f"{shared}:/data", *_OPTIONS, "busybox",
        "sh", "-c", "echo x > /data/file; ! echo y > /file",
    )  # fmt: skip

    assert (shared / "file").read_text() == "x\n"


def test_podman_tells_of_a_program_that_is_not_there(podman: Podman) -> None:
    result = podman("run", "--rm", *_OPTIONS, "busybox", "nope", check=False)

    assert result.returncode == 127
    assert "executable file not found" in result.stderr
