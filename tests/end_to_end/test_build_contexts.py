"""What `build` is given: a directory, a Dockerfile or an archive on stdin, a repository."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

from support.building import NO_NETWORK, build, context, inspect, repository, run
from support.mirror import COMPRESSORS
from support.settings import OFFLINE, of_root

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


def test_a_dockerfile_may_have_a_small_letter_or_another_name(
    wherry: Cli, busybox_image: str, context: Path
) -> None:
    for name in ("Containerfile", "dockerfile", "Dockerfile"):  # each goes before the last
        (context / name).write_text(f"FROM {busybox_image}\nLABEL from={name}\n")
        wherry("build", NO_NETWORK, "-t", "made", str(context))

        labels = wherry("image", "inspect", "--format={{.Config.Labels}}", "made").stdout
        assert labels == f"map[from:{name}]\n"


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
    plain = archive(files, "w")
    for content in (plain, *(compress(plain) for compress in COMPRESSORS.values())):
        wherry("build", "-t", "made", "-f", "deep/Other", "-", input=content)

        assert run(wherry, "made", "cat", "/all/file") == "file\n"
        assert "left" not in run(wherry, "made", "ls", "/all")


@of_root
def test_a_repository_is_a_context(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    text = f"FROM {busybox_image}\nCOPY Dockerfile /from\n"
    with repository(host_dir, {"Dockerfile": text}) as url:
        wherry("build", "-t", "made", url)

    assert run(wherry, "made", "cat", "/from").startswith("FROM")


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
