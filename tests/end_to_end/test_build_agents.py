"""`--ssh`: a step uses the keys of an agent of the host, and has none of them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.building import build, context, run
from support.requirements import need_tool
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.building import Build
    from support.cli import Cli

__all__ = ["build", "context"]


@pytest.fixture
def agent(wherry: Cli, host_dir: str) -> Iterator[str]:
    """The socket of an agent with one key, which the user of the test has started."""
    path = f"{host_dir}/agent"
    process = wherry.spawn([need_tool("ssh-agent"), "-D", "-a", path])
    try:
        wait_until(lambda: os.path.exists(path), Deadline(60, "the agent to listen"))
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "of-a-test", "-f", "key"]
        for argv in (words, ["ssh-add", "-q", "key"]):
            adding = wherry.spawn(argv, env={"SSH_AUTH_SOCK": path})
            assert adding.wait(60) == 0
        yield path
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def client(context: Path, agent: str) -> None:
    """ssh-add and its libraries, and the public key, in the context."""
    program = need_tool("ssh-add")
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for path in [program, *re.findall(r"/\S+", listed)]:
        into = context / "root" / os.path.dirname(path).lstrip("/")
        into.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, into)
    shutil.copy(context.parent / "key.pub", context / "root" / "key.pub")


@pytest.mark.usefixtures("client")
def test_a_step_has_the_agents_keys_sign_and_can_do_no_more(
    wherry: Cli, build: Build, agent: str
) -> None:
    text = """
        FROM busybox
        COPY root /
        RUN --mount=type=ssh ssh-add -l > /listed && ssh-add -T /key.pub && echo signed > /signed
        RUN --mount=type=ssh ! ssh-add -D 2> /refused
        RUN --mount=type=ssh,id=default,target=/a/socket,uid=65534,mode=0640 \\
            stat -c '%u %a' /a/socket > /stat
        USER nobody
        RUN --mount=type=ssh,uid=65534 ssh-add -l > /tmp/listed
        """
    build(text, "--ssh", "default", "-t", "made", env={"SSH_AUTH_SOCK": agent})

    shown = run(wherry, "made", "cat", "/listed", "/signed", "/refused", "/stat", "/tmp/listed")
    listed, signed, refused, stat, again = shown.splitlines()
    assert "of-a-test (ED25519)" in listed == again
    assert (signed, stat) == ("signed", "65534 640")
    assert "agent refused operation" in refused or "Failed to remove" in refused
    assert run(wherry, "made", "ls", "/run/buildkit", "/a", check=False) == ""


def test_an_agent_that_a_step_needs_and_has_not_is_told_of(build: Build) -> None:
    text = "FROM busybox\nRUN --mount=type=ssh,required true\n"
    for words, reason in (
        ((), "unset ssh forward key default"),
        (("--ssh", "default"), "invalid empty ssh agent socket for default"),
        (("--ssh", "default=/nowhere"), "failed to open ssh agent socket /nowhere"),
    ):
        failed = build(text, *words, check=False)

        assert failed.returncode == 1
        assert reason in failed.stderr
    optional = build("FROM busybox\nRUN --mount=type=ssh echo ${SSH_AUTH_SOCK:-none}\n")
    assert " none\n" in optional.stderr


def test_an_agent_that_is_gone_answers_nothing(build: Build, agent: str) -> None:
    os.unlink(agent)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(agent)
    text = "FROM busybox\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo there\n"

    assert " there\n" in build(text, "--ssh", f"default={agent}").stderr
