"""Where COPY, ADD and WORKDIR put what they make, and whose it is: as with docker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.building import build, context, run

if TYPE_CHECKING:
    from pathlib import Path

    from support.building import Build
    from support.cli import Cli

__all__ = ["build", "context"]

LINKS = {"/link": "there", "/open": "nowhere/deep", "/in/up": "../../made"}


def test_a_target_is_what_links_of_the_image_lead_to(wherry: Cli, build: Build) -> None:
    build(
        """
        FROM busybox
        RUN ln -s there /link && ln -s nowhere/deep /open && echo old > /there
        RUN mkdir /in && ln -s ../../made /in/up
        COPY hello /link
        COPY hello /open/
        COPY sub /in/up
        WORKDIR /open/work
        RUN echo here > file
        """,
        *("-t", "made"),
    )

    found = run(wherry, "made", "cat", "/there", "/nowhere/deep/hello", "/made/one")
    assert found == "hello\nhello\none\n"
    assert run(wherry, "made", "cat", "/nowhere/deep/work/file") == "here\n"
    links = run(wherry, "made", "sh", "-c", "for link; do readlink $link; done", "-", *LINKS)
    assert links.splitlines() == list(LINKS.values())


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("COPY sub /etc/passwd", "cannot copy to non-directory: /etc/passwd"),
        ("COPY hello /etc/passwd/", "cannot copy to non-directory: /etc/passwd"),
        ("COPY tree /", "cannot replace a directory with a file: /there"),
        ("COPY hello sub/one /a", "more than one source file"),
        ("COPY hello /loop/x", "too many levels of symbolic links: /loop"),
        ("WORKDIR /loop", "too many levels of symbolic links: /loop"),
        ("WORKDIR /etc/passwd/x", "non-directory: /etc/passwd"),
        ("COPY none/* hello /a/", '"/none": not found'),
    ],
)
def test_nothing_of_the_image_is_replaced_that_docker_keeps(
    build: Build, context: Path, instruction: str, reason: str
) -> None:
    (context / "tree").mkdir()
    (context / "tree" / "there").symlink_to("nowhere")
    base = "FROM busybox\nRUN mkdir /there && ln -s loop /loop\n"

    failed = build(f"{base}{instruction}\n", check=False)

    assert failed.returncode == 1
    assert reason in failed.stderr.splitlines()[-1]
    assert f">>> {instruction}" in failed.stderr


def test_several_files_go_to_a_directory_that_is_there(wherry: Cli, build: Build) -> None:
    build("FROM busybox\nRUN mkdir /all\nCOPY hello sub/one /all\n", "-t", "made")

    assert run(wherry, "made", "ls", "/all").split() == ["hello", "one"]


def test_a_pattern_may_match_nothing(wherry: Cli, build: Build) -> None:
    build("FROM busybox\nCOPY hello *.lock sub/*.lock /all/\nADD *.tgz /none/\n", "-t", "made")

    assert run(wherry, "made", "ls", "/all").split() == ["hello"]


def test_a_directory_that_is_made_for_copies_is_a_plain_one(wherry: Cli, build: Build) -> None:
    build(
        """
        FROM busybox AS from
        RUN mkdir -p /from/in && chmod 700 /from /from/in && chown 7:8 /from /from/in
        FROM busybox
        COPY --from=from /from /to
        COPY --from=from --chown=9 --chmod=711 /from /others
        COPY --from=from --parents /from /all
        """,
        *("-t", "made"),
    )

    names = ("/to", "/to/in", "/others", "/others/in", "/all/from")
    assert run(wherry, "made", "stat", "-c", "%n %a %u:%g", *names).splitlines() == [
        "/to 755 0:0",
        "/to/in 700 7:8",
        "/others 755 9:9",
        "/others/in 711 9:9",
        "/all/from 700 7:8",
    ]


def test_a_working_directory_is_its_users(wherry: Cli, build: Build) -> None:
    build(
        """
        FROM busybox
        WORKDIR /roots
        USER www-data
        WORKDIR /work/deep
        RUN touch mine
        USER 7:8
        WORKDIR /numbers
        USER nobody-knows
        WORKDIR /last
        USER 0
        """,
        *("-t", "made"),
    )

    names = ("/roots", "/work", "/work/deep", "/work/deep/mine", "/numbers", "/last")
    found = run(wherry, "made", "stat", "-c", "%u:%g", *names).split()
    assert found == ["0:0", "33:33", "33:33", "33:33", "7:8", "0:0"]
