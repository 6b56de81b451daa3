"""`build`: a Dockerfile and a context become an image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from support.building import build, context, inspect, run

if TYPE_CHECKING:
    from pathlib import Path

    from support.building import Build
    from support.cli import Cli

__all__ = ["build", "context"]


def test_an_image_is_what_its_dockerfile_says(wherry: Cli, build: Build) -> None:
    build(
        """
        ARG BASE=busybox
        FROM $BASE
        ARG WHO=world
        ENV GREETING="hello $WHO" OTHER=kept
        WORKDIR /app/deep
        COPY hello sub/ ./
        RUN echo "$GREETING" > out
        LABEL a=b
        EXPOSE 80 53/udp
        USER nobody
        ENTRYPOINT ["cat"]
        CMD ["out"]
        """,
        *("-t", "made", "--build-arg", "WHO=wherry", "--label", "c=d"),
    )

    assert run(wherry, "made") == "hello wherry\n"
    assert run(wherry, "made", "hello", "one", "deep/two") == "hello\none\ntwo\n"
    config = inspect(wherry, "made")["Config"]
    assert isinstance(config, dict)
    assert config["User"] == "nobody"
    assert config["WorkingDir"] == "/app/deep"
    assert config["Labels"] == {"a": "b", "c": "d"}
    assert set(config["ExposedPorts"]) == {"80/tcp", "53/udp"}
    assert "GREETING=hello wherry" in config["Env"]


def test_what_has_been_built_is_not_built_again(wherry: Cli, build: Build, context: Path) -> None:
    text = "FROM busybox\nCOPY hello /\nRUN date +%s%N > /when\n"
    build(text, "-t", "first")
    (context / "hello").touch()

    again = build(text, "-t", "second")

    assert again.stderr.count("CACHED") == 3
    assert inspect(wherry, "first")["Id"] == inspect(wherry, "second")["Id"]


def test_a_changed_file_is_built_again(wherry: Cli, build: Build, context: Path) -> None:
    text = "FROM busybox\nCOPY hello /\nRUN cat hello > /copy\n"
    build(text, "-t", "made")
    (context / "hello").write_text("other\n")

    build(text, "-t", "made")

    assert run(wherry, "made", "cat", "/copy") == "other\n"


def test_a_large_file_that_has_changed_under_its_times_is_built_again(
    wherry: Cli, build: Build, context: Path
) -> None:
    large = context / "large"
    text = "FROM busybox\nCOPY large /\nRUN tail -c 4 /large > /end\n"
    for end in (b"one\n", b"two\n"):
        large.write_bytes(bytes(2 << 20) + end)
        os.utime(large, (0, 0))

        build(text, "-t", "made")
        build(text, "-t", "made")

        assert run(wherry, "made", "cat", "/end").encode() == end


def test_progress_has_a_number_for_each_step_and_the_output_of_commands(build: Build) -> None:
    shown = build("FROM busybox\nRUN echo some output\n", "-t", "made").stderr

    assert "[2/2] RUN echo some output\n" in shown
    assert any(
        line.startswith("#") and line.endswith(" some output") for line in shown.splitlines()
    )


def test_a_command_that_fails_ends_the_build(wherry: Cli, build: Build) -> None:
    failed = build("FROM busybox\nRUN echo before; exit 3\n", "-t", "made", check=False)

    assert failed.returncode == 1
    assert ">>> RUN echo before; exit 3" in failed.stderr
    assert failed.stderr.splitlines()[-1] == (
        "wherry: failed to build: failed to solve: "
        'process "/bin/sh -c echo before; exit 3" did not complete successfully: exit code: 3'
    )
    assert wherry("ps", "-aq").lines == []


def test_a_file_that_is_missing_is_named(build: Build) -> None:
    failed = build("FROM busybox\nCOPY nowhere /\n", check=False)

    assert failed.returncode == 1
    assert '"/nowhere": not found' in failed.stderr


def test_a_stage_takes_files_from_the_root_of_no_other_place(build: Build, context: Path) -> None:
    (context / "out").symlink_to("/etc/passwd")

    failed = build("FROM busybox\nCOPY out /\n", check=False)

    assert failed.returncode == 1
    assert '"/out": not found' in failed.stderr
