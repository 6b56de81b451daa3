"""The host's side on systems that are not here: see support/foreign.py."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
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
    logs = there("machine", "logs").stdout.decode()
    stopped = there("machine", "stop")

    assert stopped.returncode == 0, stopped.stderr
    assert loaded.stdout == b"Loaded image: busybox:latest\n", loaded.stderr
    assert (ran.returncode, ran.stdout, ran.stderr) == (6, b"to and fro\x00\xff", b"err\n"), logs
    assert len(Path(own_world.directory, "cid").read_text()) == 64
    assert copied.returncode == 0
    assert Path(own_world.directory, "saved.tar").stat().st_size > 1_000_000
    assert (listed.returncode, listed.stdout) == (0, b"")


def test_what_commands_name_of_the_host_is_the_hosts(there: Foreign, own_world: World) -> None:
    place = Path(own_world.directory)
    (place / "secret").write_text("hidden\n")
    (place / "variables").write_text("FROM_FILE=variable\n")
    (place / "tree").mkdir()
    (place / "tree" / "file").write_text("content\n")
    there("machine", "init", "--share", str(place))
    there("load", input=busybox_archive())

    ran = there(
        "run", "--rm", OFFLINE, "-v", "./tree:/tree", "--env-file", "variables",
        "--secret", "id=s,src=secret", "busybox",
        "sh", "-c", "cat /tree/file /run/secrets/s; echo $FROM_FILE; echo new >/tree/new",
    )  # fmt: skip
    outside = there("run", "--rm", "-v", "/opt:/opt", "busybox", "true")
    there("run", "-d", "--name", "box", OFFLINE, "busybox", "sleep", "1000")
    into = there("cp", "tree", "box:/tmp/copy")
    out = there("cp", "box:/tmp/copy/file", "back")
    signalled = there("kill", "--signal", "KILL", "box")
    ended = there("wait", "box")
    forgotten = there("machine", "rm", "--force", "default")

    assert ran.stdout == b"content\nhidden\nvariable\n", ran.stderr
    assert outside.returncode == 125
    assert b"wherry: /opt is in no directory that machine default shares" in outside.stderr
    assert (place / "tree" / "new").read_text() == "new\n"
    assert (into.returncode, out.returncode) == (0, 0), (into.stderr, out.stderr)
    assert (place / "back").read_text() == "content\n"
    assert (signalled.stdout, ended.stdout) == (b"box\n", b"137\n")
    assert forgotten.returncode == 0, forgotten.stderr
    assert not Path(own_world.root, "data/machines/default").exists()


def test_a_whole_build(there: Foreign, own_world: World, request: pytest.FixtureRequest) -> None:
    place = Path(own_world.directory, "context")
    (place / "sub").mkdir(parents=True)
    (place / "sub" / "file").write_text("file\n")
    (place / "plain").write_text("plain\n")
    (place / "left").write_text("left\n")
    (place / "link").symlink_to("sub")
    (place / "absolute").symlink_to(place / "sub")
    (place / ".dockerignore").write_text("left\n")
    Path(own_world.directory, "secret").write_text("hush\n")
    (place / "Dockerfile").write_text(DOCKERFILE)
    there("load", input=busybox_archive())
    words = ("build", OFFLINE, "--progress=plain", "--secret", "id=s,src=secret")

    first = there(*words, "-t", "made", "--iidfile", "id", "context")
    again = there(*words, "-t", "made", "-o", "out", "-o", "type=tar,dest=out.tar", "context")
    sent = there(*words, "-q", "-t", "piped", "-", input=archive_of(place))
    shown = there("run", "--rm", OFFLINE, "piped", "cat", "/all/link/file")
    there("machine", "stop")

    assert first.returncode == again.returncode == sent.returncode == 0, (
        first.stderr + again.stderr + sent.stderr
    )
    assert b"transferring context" in first.stderr
    assert b"transferring context" not in again.stderr
    assert Path(own_world.directory, "id").read_text().startswith("sha256:")
    out = Path(own_world.directory, "out")
    assert (out / "seen").read_text() == "hush\n"
    assert os.readlink(out / "all" / "link") == "sub"
    is_windows = request.node.callspec.params["there"] == "win32"
    assert os.readlink(out / "all" / "absolute") == ("sub" if is_windows else str(place / "sub"))
    assert (out / "modes").read_text() == ("755\n755\n" if is_windows else "644\n755\n")
    assert not (out / "all" / "left").exists()
    assert Path(own_world.directory, "out.tar").stat().st_size > 1000
    assert shown.stdout == b"file\n", shown.stderr


DOCKERFILE = """\
FROM busybox AS made
COPY . /all/
RUN --mount=type=secret,id=s cat /run/secrets/s > /seen
RUN stat -c %a /all/plain /all/sub > /modes
FROM scratch
COPY --from=made /all /all
COPY --from=made /bin/busybox /bin/cat
COPY --from=made /seen /modes /
"""


def archive_of(directory: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        archive.add(directory, ".")
    return content.getvalue()


@pytest.mark.parametrize("there", ["win32"], indirect=True)
def test_shares_are_mounted_anew_with_a_new_connection(there: Foreign, own_world: World) -> None:
    """Where QEMU has no UNIX sockets they are channels of the SSH connection."""
    Path(own_world.home, "file").write_bytes(b"content\n")
    there("load", input=busybox_archive())
    read = ("run", "--rm", OFFLINE, "-v", f"{own_world.home}:/w", "busybox", "cat", "/w/file")
    before = there(*read)
    there("machine", "ssh", "default", "sh", "-c", "kill -9 $(pidof sshd-session)")
    after = there(*read)
    logs = there("machine", "logs").stdout
    stopped = there("machine", "stop")

    assert stopped.returncode == 0, stopped.stderr
    assert logs.count(b"the SSH connection to the guest broke off: ") == 1
    assert (before.stdout, before.stderr) == (b"content\n", b"")
    assert (after.stdout, after.stderr) == (b"content\n", b"")
