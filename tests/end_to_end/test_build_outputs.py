"""What a build leaves beside an image, and what it keeps for the next."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.building import build, context, inspect, run
from support.settings import on_linux

if TYPE_CHECKING:
    from support.building import Build
    from support.cli import Cli
    from support.world import World

__all__ = ["build", "context"]

FILES = """
FROM busybox AS made
RUN mkdir /out && echo text > /out/file && ln -s file /out/link
FROM scratch
COPY --from=made /out /
"""


def test_files_are_written_to_a_directory_or_a_tar(
    wherry: Cli, build: Build, host_dir: str
) -> None:
    build(FILES, "-o", f"{host_dir}/out")
    build(FILES, "-o", f"type=tar,dest={host_dir}/out.tar")
    content = build(FILES, "-o", "-").output

    assert Path(f"{host_dir}/out/link").read_text() == "text\n"
    assert Path(f"{host_dir}/out.tar").read_bytes() == content
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert {"file", "link"} <= {name.removeprefix("./") for name in archive.getnames()}
    assert wherry("images", "-q").lines == wherry("images", "-q", "busybox").lines


@pytest.mark.parametrize("output", ["-", "type=oci"])
def test_a_build_ends_quietly_where_nobody_reads_its_output(
    wherry: Cli, context: Path, busybox_image: str, output: str
) -> None:
    (context / "Dockerfile").write_text(f"FROM {busybox_image}\n")
    words = ("build", "--progress=plain", "-o", output, str(context))
    process = wherry.start(*words, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stderr is not None
    assert len(process.stdout.read(512)) == 512

    process.stdout.close()

    assert process.wait(60) == 141
    assert "wherry: " not in process.stderr.read().decode()
    process.stderr.close()


def test_several_outputs_are_written_beside_the_image(
    wherry: Cli, build: Build, host_dir: str
) -> None:
    places = ("-o", f"{host_dir}/out", "-o", f'type=tar,"dest={host_dir}/a,b.tar"')
    quiet = build(FILES, "-q", *places, "-o", "type=image,name=made")

    assert quiet.stdout == f"{inspect(wherry, 'made')['Id']}\n"
    assert Path(f"{host_dir}/out/file").read_text() == "text\n"
    with tarfile.open(f"{host_dir}/a,b.tar") as archive:
        assert "file" in {name.removeprefix("./") for name in archive.getnames()}


def test_of_a_build_that_fails_no_output_is_there(build: Build, host_dir: str) -> None:
    places = ("-o", f"{host_dir}/out", "-o", f"type=tar,dest={host_dir}/out.tar")
    failed = build("FROM busybox\nRUN exit 3\n", *places, check=False)

    assert failed.returncode == 1
    assert "exit code: 3" in failed.stderr.splitlines()[-1]
    assert os.listdir(host_dir) == ["context"]


def test_an_output_that_cannot_be_written_is_told_of(build: Build, host_dir: str) -> None:
    Path(f"{host_dir}/file").write_text("in the way\n")
    for output in (f"{host_dir}/file", f"type=tar,dest={host_dir}/file/out.tar"):
        failed = build(FILES, "-o", output, check=False)

        assert failed.returncode == 1
        assert failed.stderr.splitlines()[-1].startswith("wherry: ")
        assert "Traceback" not in failed.stderr
        assert f"{host_dir}/file" in failed.stderr


def test_an_archive_can_be_loaded(wherry: Cli, build: Build, host_dir: str) -> None:
    for kind in ("oci", "docker"):
        build("FROM busybox\nRUN echo a > /a\n", "-t", f"made:{kind}", "-o",
              f"type={kind},dest={host_dir}/made.tar")  # fmt: skip

        assert wherry("load", "-i", f"{host_dir}/made.tar").stdout == f"Loaded image: made:{kind}\n"
        assert run(wherry, f"made:{kind}", "cat", "/a") == "a\n"


def test_what_was_built_is_told_to_files_and_quietly(
    wherry: Cli, build: Build, host_dir: str
) -> None:
    files = ("--iidfile", f"{host_dir}/id", "--metadata-file", f"{host_dir}/metadata")
    quiet = build("FROM busybox\nLABEL a=b\n", "-q", "-t", "made", *files)

    identity = inspect(wherry, "made")["Id"]
    assert (quiet.stdout, quiet.stderr) == (f"{identity}\n", "")
    assert Path(f"{host_dir}/id").read_text() == identity
    metadata = json.loads(Path(f"{host_dir}/metadata").read_text())
    assert metadata["containerimage.config.digest"] == identity
    assert metadata["image.name"] == "docker.io/library/made:latest"


def test_with_a_moment_given_the_same_context_makes_the_same_image(
    wherry: Cli, build: Build, context: Path
) -> None:
    text = "FROM busybox\nCOPY . /all\nRUN date > /dev/null; echo x > /x\nWORKDIR /new\n"
    options = ("--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1700000000")
    build(text, "-t", "one", *options)
    (context / "hello").touch()
    build(text, "-t", "two", *options)

    assert inspect(wherry, "one")["Id"] == inspect(wherry, "two")["Id"]
    assert str(inspect(wherry, "one")["Created"]).startswith("2023-11-14T22:13:20")


def test_the_cache_outlives_its_images_until_it_is_pruned(wherry: Cli, build: Build) -> None:
    text = "FROM busybox\nRUN echo a > /a\n"
    build(text, "-t", "made")
    wherry("rmi", "made")

    assert "CACHED" in build(text, "-t", "made").stderr.split("RUN echo")[1]
    assert "Total:" in wherry("builder", "du").stdout
    wherry("rmi", "made")
    row = '{{if eq .Type "Build Cache"}}{{.TotalCount}} {{.Reclaimable}}{{end}}'
    # In a machine the copy of the context is among it.
    count, free = wherry("system", "df", "--format", row).stdout.split()
    assert int(count) >= 1
    assert free != "0B"
    pruned = wherry("builder", "prune", "-f").stdout
    assert "Deleted build cache objects:" in pruned
    assert "CACHED" not in build(text).stderr.split("RUN echo")[1]


@on_linux  # a machine's reset would take the image away that its other tests have
def test_a_reset_leaves_nothing_of_builds(wherry: Cli, world: World, build: Build) -> None:
    build("FROM busybox\nRUN --mount=type=cache,target=/c touch /c/a\n")

    wherry("system", "reset", "--force")

    assert set(os.listdir(f"{world.root}/data")) <= {"containers", "names", "images"}


def test_the_cache_goes_with_what_the_system_does_not_use(wherry: Cli, build: Build) -> None:
    text = "FROM busybox\nRUN echo a > /a\n"
    build(text, "-t", "made")
    wherry("system", "prune", "-f")
    kept = build(text, "-t", "made").stderr
    wherry("rmi", "made")

    pruned = wherry("system", "prune", "-f").stdout

    assert "CACHED" in kept.split("RUN echo")[1]
    assert "Deleted build cache objects:" in pruned
    assert "CACHED" not in build(text).stderr.split("RUN echo")[1]
