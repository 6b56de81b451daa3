"""Several builds at the same time, and what is removed meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.building import NO_NETWORK, build, context, run

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from support.building import Build
    from support.cli import Cli

__all__ = ["build", "context"]


def start(wherry: Cli, context: Path, tag: str) -> subprocess.Popen[bytes]:
    return wherry.start("build", NO_NETWORK, "--progress=plain", "-t", tag, str(context))


@pytest.mark.parametrize("count", [2, 5])
def test_builds_of_the_same_do_each_step_once(
    wherry: Cli, build: Build, context: Path, count: int
) -> None:
    build("FROM busybox\nCOPY hello /\n")
    dockerfile = (context / "Dockerfile").read_text()
    (context / "Dockerfile").write_text(
        f"{dockerfile}RUN --mount=type=cache,target=/c echo done >> /c/log && cp /c/log /log\n"
        "RUN --mount=type=cache,target=/c echo more >> /c/log && cp /c/log /more\n"
    )
    builds = [start(wherry, context, f"made:{number}") for number in range(count)]
    told = [each.communicate(timeout=120)[1].decode() for each in builds]

    assert [each.returncode for each in builds] == [0] * count, told
    for number in range(count):
        assert run(wherry, f"made:{number}", "cat", "/more") == "done\nmore\n"
    assert len({*wherry("images", "--quiet", "--no-trunc", "made").lines}) == 1


def test_what_is_removed_meanwhile_is_no_builds(wherry: Cli, build: Build, context: Path) -> None:
    build("FROM busybox\nRUN echo base > /base\n", "-t", "base")
    text = "FROM base\nRUN --mount=type=cache,target=/c touch /c/now; while test ! -e /c/go; do "
    text += "usleep 100000; done; echo a > /a\nCOPY hello /\nRUN cat /base /a /hello > /all\n"
    (context / "Dockerfile").write_text(text)
    process = start(wherry, context, "made")

    assert process.stderr is not None
    while b"/c/now" not in process.stderr.readline():
        assert process.poll() is None
    wherry("rmi", "base")
    wherry("builder", "prune", "--all", "--force")
    wherry("system", "prune", "--force")
    assert wherry("ps", "--all", "--quiet").stdout == ""
    go = "FROM busybox\nRUN --mount=type=cache,target=/c touch /c/go\n"
    other = wherry("build", NO_NETWORK, "-", input=go, check=False)
    told = process.communicate(timeout=120)[1].decode()

    assert other.returncode == 0, other.stderr
    assert process.returncode == 0, told
    assert run(wherry, "made", "cat", "/all") == "base\na\nhello\n"
    assert wherry("system", "check").lines == []
