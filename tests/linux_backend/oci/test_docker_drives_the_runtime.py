"""docker, and so containerd, with wherry as the runtime of its containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING

import pytest

from support.requirements import need_tool
from support.waiting import Deadline, wait_readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.oci import Oci

    Docker = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.linux


@pytest.fixture
def docker(oci: Oci) -> Iterator[Docker]:
    """docker with a daemon of its own that has the bundle's root as the image `busybox`."""
    daemon, client = need_tool("dockerd"), need_tool("docker")
    runtime = oci.script("wherry-oci", f'#!/bin/sh\nexec {sys.executable} -m wherry oci "$@"\n')
    short = tempfile.mkdtemp(prefix="wherry-")
    address = f"unix://{short}/socket"
    process = subprocess.Popen(
        [
            daemon, "--iptables=false", "--ip6tables=false", "--bridge=none", f"--host={address}",
            f"--pidfile={short}/pid", f"--data-root={short}/data", f"--exec-root={short}/run",
            f"--add-runtime=wherry={runtime}", "--default-runtime=wherry",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=oci.environment,
    )  # fmt: skip
    assert process.stderr is not None
    said, deadline = b"", Deadline(60, "dockerd to listen")
    while b"API listen on" not in said:
        wait_readable(process.stderr.fileno(), deadline)
        chunk = os.read(process.stderr.fileno(), 65536)
        if not chunk:
            pytest.skip(f"dockerd cannot run here: {said.decode()[-300:]}")
        said += chunk
    reader = threading.Thread(target=process.stderr.read)
    reader.start()

    def call(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [client, "--host", address, *words], capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert not check or result.returncode == 0, result.stderr
        return result

    call("import", shutil.make_archive(str(oci.base / "root"), "tar", oci.rootfs), "busybox")
    yield call
    if found := call("ps", "-aq").stdout.split():
        call("rm", "--force", *found)
    process.terminate()
    process.wait()
    reader.join()
    process.stderr.close()
    shutil.rmtree(short, ignore_errors=True)


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
