"""docker, and so containerd, with wherry as the runtime of its containers."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from support.docker import Docker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.oci import Oci

pytestmark = pytest.mark.linux


@pytest.fixture
def docker(oci: Oci) -> Iterator[Docker]:
    """docker with a daemon of its own that has the bundle's root as the image `busybox`."""
    runtime = oci.script("wherry-oci", f'#!/bin/sh\nexec {sys.executable} -m wherry oci "$@"\n')
    docker = Docker(
        "--iptables=false", "--ip6tables=false", "--bridge=none",
        f"--add-runtime=wherry={runtime}", "--default-runtime=wherry",
        environment=oci.environment,
    )  # fmt: skip
    docker("import", shutil.make_archive(str(oci.base / "root"), "tar", oci.rootfs), "busybox")
    yield docker
    docker.close()


def test_docker_runs_what_its_users_run(docker: Docker, oci: Oci) -> None:
    run = ("run", "--rm", "--network", "none")

    result = docker(*run, "busybox", "sh", "-c", "echo hi; exit 6", check=False)
    assert (result.returncode, result.stdout) == (6, "hi\n")

    missing = docker(*run, "busybox", "nope", check=False)
    assert missing.returncode == 127
    assert 'exec: "nope": executable file not found in $PATH' in missing.stderr

    shared = oci.base / "shared"
    shared.mkdir()
    docker(*run, "-v", f"{shared}:/tmp", "busybox", "sh", "-c", "echo x > /tmp/file")
    assert (shared / "file").read_text() == "x\n"
    assert docker(*run, "-t", "busybox", "tty").stdout.strip() == "/dev/pts/0"


def test_docker_manages_a_container_that_goes_on(docker: Docker) -> None:
    docker("run", "-d", "--network", "none", "--name", "box", "busybox", "sleep", "60")

    assert docker("exec", "box", "echo", "in").stdout == "in\n"
    assert docker("exec", "-u", "12:34", "box", "id", "-u").stdout == "12\n"
    assert docker("exec", "box", "nope", check=False).returncode in (126, 127)
    assert "sleep 60" in docker("top", "box").stdout
    docker("pause", "box")
    assert docker("inspect", "-f", "{{.State.Status}}", "box").stdout == "paused\n"
    docker("unpause", "box")
    docker("restart", "--time", "0", "box")
    assert docker("exec", "box", "echo", "again").stdout == "again\n"
    docker("kill", "box")
    assert docker("wait", "box").stdout == "137\n"
