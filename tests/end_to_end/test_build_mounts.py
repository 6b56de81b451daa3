"""`RUN --mount`: what a step sees and keeps nothing of."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from support.building import build, context, run
from support.settings import as_single_uid

if TYPE_CHECKING:
    from pathlib import Path

    from support.building import Build
    from support.cli import Cli

__all__ = ["build", "context"]


def test_a_bind_shows_files_and_leaves_nothing_of_them(wherry: Cli, build: Build) -> None:
    build(
        """
        FROM busybox AS other
        RUN mkdir /tree && echo stage > /tree/file
        FROM busybox
        WORKDIR /work
        RUN --mount=target=/ctx --mount=type=bind,from=other,source=tree,target=there \\
            --mount=source=hello,target=hello,rw \\
            cat /ctx/sub/one there/file hello > /seen && echo x >> hello && ! touch /ctx/new
        """,
        *("-t", "made"),
    )

    assert run(wherry, "made", "cat", "/seen") == "one\nstage\nhello\n"
    assert run(wherry, "made", "ls", "/work") == ""
    assert "ctx" not in run(wherry, "made", "ls", "/")


def test_a_changed_file_of_a_bind_is_seen(build: Build, context: Path) -> None:
    text = "FROM busybox\nRUN --mount=target=/ctx cat /ctx/hello\n"
    build(text)
    again = build(text).stderr
    (context / "hello").write_text("changed\n")

    assert "CACHED" in again.split("RUN --mount")[1]
    assert " changed\n" in build(text).stderr


def test_a_cache_is_kept_from_build_to_build(wherry: Cli, build: Build) -> None:
    text = """
        FROM busybox
        ARG TIME
        RUN --mount=type=cache,target=/var/cache/some,uid=33,mode=0700 \\
            echo $TIME >> /var/cache/some/log && cp /var/cache/some/log /log && \\
            stat -c '%u %a' /var/cache/some > /stat
        """
    build(text, "--build-arg", "TIME=1")
    build(text, "--build-arg", "TIME=2", "-t", "made")

    assert run(wherry, "made", "cat", "/log", "/stat") == "1\n2\n33 700\n"
    assert run(wherry, "made", "ls", "/var").split() == []


def test_a_secret_is_seen_and_is_nowhere_else(wherry: Cli, build: Build, context: Path) -> None:
    (context.parent / "token").write_text("hush")
    text = """
        FROM busybox
        RUN --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN \\
            test "$(cat /run/secrets/token)$TOKEN" = hushhush && echo seen > /seen
        RUN --mount=type=secret,id=other test ! -e /run/secrets/other
        """
    shown = build(text, "--secret", f"id=token,src={context.parent}/token", "-t", "made").stderr

    assert "hush" not in shown.replace("= hushhush", "")
    assert run(wherry, "made", "cat", "/seen") == "seen\n"
    assert run(wherry, "made", "ls", "/run/secrets", check=False) == ""
    missing = build("FROM busybox\nRUN --mount=type=secret,id=a,required true\n", check=False)
    assert "secret a: not found" in missing.stderr


def test_a_tmpfs_is_gone_afterwards(wherry: Cli, build: Build) -> None:
    build("FROM busybox\nRUN --mount=type=tmpfs,target=/t echo x > /t/x && ls /t > /seen\n", "-t",
          "made")  # fmt: skip

    assert run(wherry, "made", "cat", "/seen") == "x\n"
    assert run(wherry, "made", "ls", "/t", check=False) == ""


def test_a_dockerfile_has_the_hosts_network_only_where_it_is_allowed(build: Build) -> None:
    for flag in ("--network=host", "--security=insecure"):
        refused = build(f"FROM busybox\nRUN {flag} true\n", check=False)

        assert refused.returncode == 1
        assert "is not allowed" in refused.stderr


def test_a_mount_that_makes_no_sense_is_refused(build: Build) -> None:
    for mount, reason in (
        ("type=none,target=/x", 'unsupported mount type "none"'),
        ("type=tmpfs,target=/x,mode=1", "unexpected key 'mode' for mount type 'tmpfs'"),
        ("type=cache", "a cache mount needs a target"),
        ("type=cache,target=/x,sharing=some", 'unsupported sharing value "some"'),
    ):
        refused = build(f"FROM busybox\nRUN --mount={mount} true\n", check=False)

        assert refused.returncode == 1
        assert reason in refused.stderr


@as_single_uid
def test_a_user_that_is_not_there_is_given_nothing(build: Build, context: Path) -> None:
    agent = context.parent / "agent"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(agent))
    words = ("--secret", f"id=s,src={context}/hello", "--ssh", f"default={agent}")
    for mount in ("cache,target=/c", "secret,id=s", "ssh"):
        text = f"FROM busybox\nRUN --mount=type={mount},uid=33 true\n"
        refused = build(text, *words, check=False)

        assert refused.returncode == 1
        assert "cannot give anything to user 33:0\n" in refused.stderr
        assert "the id is not mapped" in refused.stderr


def test_what_is_mounted_counts_by_its_content(wherry: Cli, build: Build, context: Path) -> None:
    text = "FROM busybox\nRUN --mount=target=/ctx,source=sub cat /ctx/one > /seen\n"
    build(text, "-t", "made")
    os.utime(context / "sub" / "one", (0, 0))

    touched = build(text).stderr
    (context / "sub" / "one").write_text("other\n")
    changed = build(text, "-t", "made").stderr

    assert "CACHED" in touched.split("RUN --mount")[1]
    assert "CACHED" not in changed.split("RUN --mount")[1]
    assert run(wherry, "made", "cat", "/seen") == "other\n"
