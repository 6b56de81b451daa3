"""What `build` is given: a directory, a Dockerfile or an archive on stdin, a repository."""

from __future__ import annotations

import io
import socket
import subprocess
import tarfile
from typing import TYPE_CHECKING

from support.building import NO_NETWORK, build, context, inspect, run
from support.requirements import need_tool
from support.settings import OFFLINE, of_root
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from support.building import Build
    from support.cli import Cli

__all__ = ["build", "context"]


def test_a_dockerfile_on_standard_input_has_no_context(wherry: Cli, busybox_image: str) -> None:
    text = f"FROM {busybox_image}\nRUN echo here > /file\n"
    wherry("build", NO_NETWORK, "-t", "made", "-", input=text)

    assert run(wherry, "made", "cat", "/file") == "here\n"
    failed = wherry("build", "-", input=f"FROM {busybox_image}\nCOPY a /\n", check=False)
    assert failed.returncode == 1
    assert "there is no context" in failed.stderr


def test_a_dockerfile_on_standard_input_may_have_a_context(
    wherry: Cli, busybox_image: str, context: Path
) -> None:
    text = f"FROM {busybox_image}\nCOPY hello /\n"
    wherry("build", "-t", "made", "-f", "-", str(context), input=text)

    assert run(wherry, "made", "cat", "/hello") == "hello\n"


def archive(files: dict[str, str], mode: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as writer:  # type: ignore[call-overload]
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            writer.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()


def test_an_archive_on_standard_input_is_a_context(wherry: Cli, busybox_image: str) -> None:
    files = {
        "deep/Other": f"FROM {busybox_image}\nCOPY . /all/\n",
        "file": "file\n",
        "left": "left\n",
        ".dockerignore": "left\n",
    }
    for mode in ("w", "w:gz"):
        content = archive(files, mode)
        wherry("build", "-t", "made", "-f", "deep/Other", "-", input=content)

        assert run(wherry, "made", "cat", "/all/file") == "file\n"
        assert "left" not in run(wherry, "made", "ls", "/all")


@of_root
def test_a_repository_is_a_context(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    need_tool("git")
    git = ["git", "-C", f"{host_dir}/tree", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", f"{host_dir}/tree"], check=True)
    with open(f"{host_dir}/tree/Dockerfile", "w") as file:
        file.write(f"FROM {busybox_image}\nCOPY Dockerfile /from\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    daemon = subprocess.Popen(
        ["git", "daemon", "--export-all", f"--base-path={host_dir}", "--listen=127.0.0.1",
         f"--port={port}", host_dir],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: _answers(port), Deadline(20, "git daemon to answer"))
        wherry("build", "-t", "made", f"git://127.0.0.1:{port}/tree")
    finally:
        daemon.terminate()
        daemon.wait()

    assert run(wherry, "made", "cat", "/from").startswith("FROM")


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_squash_makes_one_layer_of_all_new_ones(wherry: Cli, build: Build) -> None:
    build(
        """
        FROM busybox
        RUN echo first > /first && rm /etc/group && echo gone > /gone
        RUN echo second > /second && rm /gone
        """,
        *("--squash", "-t", "made"),
    )

    found = wherry("run", "--rm", OFFLINE, "made", "ls", "/", "/etc").stdout.split()
    assert {"first", "second", "passwd"} <= set(found)
    assert not {"gone", "group"} & set(found)
    layers = inspect(wherry, "made")["RootFS"]
    assert isinstance(layers, dict)
    assert len(layers["Layers"]) == 2


def test_a_dockerfile_that_leads_out_of_its_context_is_refused(
    wherry: Cli, context: Path, host_dir: str
) -> None:
    with open(f"{host_dir}/secret", "w") as file:
        file.write("FROM hush\n")
    (context / "Dockerfile").symlink_to(f"{host_dir}/secret")

    refused = wherry("build", str(context), check=False)

    assert refused.returncode == 1
    assert "hush" not in refused.stderr
    assert "leads out of the context" in refused.stderr
