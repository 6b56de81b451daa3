"""Building images in a test: a context, and `build(text, …)`."""

from __future__ import annotations

import json
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.ports import free_port
from support.requirements import need_tool
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from support.cli import Cli, Result

    Build = Callable[..., Result]

NO_NETWORK = "--network=none"


@pytest.fixture
def context(host_dir: str) -> Path:
    """A directory with a few files, to be built from."""
    directory = Path(host_dir) / "context"
    (directory / "sub" / "deep").mkdir(parents=True)
    (directory / "hello").write_text("hello\n")
    (directory / "sub" / "one").write_text("one\n")
    (directory / "sub" / "deep" / "two").write_text("two\n")
    return directory


@pytest.fixture
def build(wherry: Cli, busybox_image: str, context: Path) -> Build:
    """`build(text, "-t", "x", …)` of a Dockerfile with this text; `FROM busybox` is there."""

    def run(
        text: str, *options: str, check: bool = True, env: Mapping[str, str] | None = None
    ) -> Result:
        (context / "Dockerfile").write_text(text.replace("busybox", busybox_image))
        words = ("build", NO_NETWORK, *options, str(context))
        return wherry(*words, check=check, timeout=120, env=env)

    return run


@contextmanager
def repository(directory: str, files: Mapping[str, str]) -> Iterator[str]:
    """The URL of a git repository with these files, in a directory that has room for it."""
    need_tool("git")
    tree = f"{directory}/repository"
    git = ["git", "-C", tree, "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", tree], check=True)
    for name, text in files.items():
        Path(tree, name).write_text(text)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    port = free_port()
    daemon = subprocess.Popen(
        ["git", "daemon", "--export-all", f"--base-path={directory}", "--listen=127.0.0.1",
         f"--port={port}", directory],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: _answers(port), Deadline(60, "git daemon to answer"))
        yield f"git://127.0.0.1:{port}/repository"
    finally:
        daemon.terminate()
        daemon.wait()


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def inspect(wherry: Cli, image: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(wherry("image", "inspect", image).stdout)[0]
    return found


def run(wherry: Cli, image: str, *command: str, check: bool = True) -> str:
    return wherry("run", "--rm", NO_NETWORK, image, *command, check=check).stdout
