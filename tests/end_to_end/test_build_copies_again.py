"""Files that were copied before are not copied again, and are never other files than those."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from support.building import build, context, inspect, run
from support.settings import on_linux

if TYPE_CHECKING:
    from pathlib import Path

    from support.building import Build
    from support.cli import Cli

__all__ = ["build", "context"]

pytestmark = on_linux

# The way to the target is made at the time of the copy: a layer made again is another.
TEXT = """
FROM busybox
ARG RUNS=1
RUN mkdir -p /app && echo $RUNS > /app/runs
WORKDIR /app
COPY sub /app/on/its/way/
"""
LARGE = 3_000_000


def layers(wherry: Cli, image: str = "made") -> list[str]:
    found: list[str] = inspect(wherry, image)["RootFS"]["Layers"]  # type: ignore[index]
    return found


def rewrite(file: Path, content: bytes) -> None:
    """Other content of the same size, behind the same time."""
    before = file.stat()
    assert len(content) == before.st_size
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_copy_onto_other_layers_has_the_layer_that_is_here(wherry: Cli, build: Build) -> None:
    build(TEXT, "-t", "made")
    first = layers(wherry)

    build(TEXT, "-t", "made", "--build-arg", "RUNS=2")

    second = layers(wherry)
    assert first[-2] != second[-2]
    assert first[-1] == second[-1]
    assert run(wherry, "made", "cat", "runs", "on/its/way/deep/two") == "2\ntwo\n"


def test_a_copy_without_the_cache_has_the_layer_that_is_here(wherry: Cli, build: Build) -> None:
    build(TEXT, "-t", "made")
    first = layers(wherry)

    told = build(TEXT, "-t", "made", "--no-cache")

    assert "CACHED" not in told.stderr.split("WORKDIR", 1)[1]
    assert layers(wherry)[-1] == first[-1]


def test_what_copies_of_the_same_files_are_to_become_counts(
    wherry: Cli, build: Build, context: Path
) -> None:
    text = "FROM busybox\nCOPY {} sub /made/here/\n"
    look = ("stat", "-c", "%a %u %Y", "/made/here/one")

    def made(flags: str) -> str:
        build(text.format(flags), "-t", "made", "--no-cache")
        return run(wherry, "made", *look).strip()

    os.chmod(context / "sub" / "one", 0o604)
    os.utime(context / "sub" / "one", (1000, 1000))
    assert made("") == "604 0 1000"
    assert made("--chmod=600") == "600 0 1000"
    assert made("--chown=7") == "604 7 1000"
    os.utime(context / "sub" / "one", (2000, 2000))
    assert made("") == "604 0 2000"
    os.chmod(context / "sub" / "one", 0o644)
    assert made("") == "644 0 2000"


@pytest.mark.parametrize("size", [10, LARGE])
def test_files_that_change_behind_their_times_are_copied_as_they_are(
    wherry: Cli, build: Build, context: Path, size: int
) -> None:
    file = context / "sub" / "file"
    file.write_bytes(b"a" * size)
    for letter in (b"b", b"c", b"b", b"a"):
        build(TEXT, "-t", "made", "--no-cache")

        rewrite(file, letter * size)
        build(TEXT, "-t", "made", "--no-cache")

        assert run(wherry, "made", "head", "-c", "3", "on/its/way/file") == letter.decode() * 3


def test_what_was_removed_is_copied_again(wherry: Cli, build: Build) -> None:
    build(TEXT, "-t", "made")
    wherry("image", "rm", "made")
    wherry("builder", "prune", "--all", "--force")
    assert "Total:\t\t0B" in wherry("builder", "du").stdout

    build(TEXT, "-t", "made")

    assert run(wherry, "made", "cat", "on/its/way/one") == "one\n"


def test_all_times_count_where_images_are_to_be_the_same_everywhere(
    wherry: Cli, build: Build
) -> None:
    text = """
FROM busybox
ARG MOMENT
RUN mkdir /app && touch -d @$MOMENT /app
COPY hello /app/
"""

    for moment in ("1000", "2000"):
        build(text, "-t", "made", "--build-arg", f"MOMENT={moment}", env={"SOURCE_DATE_EPOCH": "9"})
        before = layers(wherry)
        build(text, "-t", "made", "--build-arg", f"MOMENT={moment}", "--build-arg",
              "SOURCE_DATE_EPOCH=5000")  # fmt: skip
        assert run(wherry, "made", "stat", "-c", "%Y", "/app").strip() == moment
        assert layers(wherry)[-1] != before[-1]


def test_a_stage_for_all_platforms_is_carried_out_once_without_the_cache(build: Build) -> None:
    text = """
FROM --platform=$BUILDPLATFORM busybox AS make
COPY hello /once/
RUN --mount=type=bind,target=/here cat /here/hello > /twice
FROM scratch
COPY --from=make /once /twice /
"""

    told = build(text, "-t", "made", "--platform=linux/amd64,linux/arm64", "--no-cache").stderr

    assert told.count("] COPY hello /once/\n") == 1
    assert told.count("] RUN --mount") == 1
