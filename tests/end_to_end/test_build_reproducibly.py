"""SOURCE_DATE_EPOCH: who builds, where and when makes no difference to the image."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.accounts import current_account
from support.building import NO_NETWORK, inspect, repository
from support.busybox import busybox_archive
from support.settings import for_every_user
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.cli import Cli

EPOCH = 1_700_000_000
MADE = "2023-11-14T22:13:20"

# What may differ from one place to another: times of directories that steps touch, what is
# mounted over, removals, kinds of files, ids, links, the environment and the mask of modes.
DOCKERFILE = """\
FROM busybox AS stage
RUN mkdir -p /made/a /made/b && echo x > /made/a/file && ln -s file /made/a/link && \\
    ln /made/a/file /made/a/hard && chmod 4711 /made/b
FROM busybox
ENV A=b
COPY . /ctx/
COPY sub/ /etc/
COPY --chmod=600 hello /modes/one
COPY --from=stage /made /made
COPY <<END /text/file
a text
END
ADD some.tar /added/
WORKDIR /work/deep
RUN mkdir d && touch d/x && mkfifo fifo && rm -rf /etc/deep /ctx/hello
RUN rm -rf d && mkdir d && touch d/y
RUN --mount=source=sub,target=/mnt/bind --mount=type=cache,target=/mnt/cache \\
    --mount=type=tmpfs,target=/mnt/tmp cat /mnt/bind/one > /seen
RUN date > /mnt/when && rm /mnt/when; hostname > /told; env | sort >> /told; umask >> /told; \\
    pwd >> /told; ls -la / | cut -c1-10 >> /told; cat /etc/hosts /etc/resolv.conf > /dev/null
LABEL l=m
"""


@pytest.fixture(scope="module")
def reference() -> Iterator[str]:
    """The id of the image that whoever runs the tests builds, in a world of its own."""
    world = World(current_account())
    try:
        world.wherry("load", input=busybox_archive())
        before = os.umask(0o077)
        try:
            image_id = built(world.wherry, world.directory)
        finally:
            os.umask(before)
    finally:
        world.close()
    yield image_id


def built(wherry: Cli, directory: str, *options: str) -> str:
    """Build a context that was made just now; the image's id."""
    wherry(
        *("build", NO_NETWORK, "-q", "-t", "made", *options, context(directory)),
        timeout=120,
        env={} if options else {"SOURCE_DATE_EPOCH": str(EPOCH)},
    )
    return str(inspect(wherry, "made")["Id"])


def context(directory: str) -> str:
    """The same files with other times, and in another place."""
    top = Path(directory, f"context-{time.time_ns()}")
    (top / "sub" / "deep").mkdir(parents=True)
    (top / "hello").write_text("hello\n")
    (top / "sub" / "one").write_text("one\n")
    (top / "sub" / "deep" / "two").write_text("two\n")
    (top / "link").symlink_to("sub")
    (top / "Dockerfile").write_text(DOCKERFILE)
    with tarfile.open(top / "some.tar", "w") as archive:
        member = tarfile.TarInfo("in/file")
        member.size, member.mtime = 3, 5
        archive.addfile(member, io.BytesIO(b"abc"))
    os.mkfifo(top / "pipe")
    # As far as they count in an image, modes are the context's and not those of a mask.
    subprocess.run(["chmod", "-R", "u=rwX,go=rX", top], check=True)
    (top / "sub" / "one").chmod(0o755)
    # What is older than the moment keeps its time.
    for name in ("pipe", "link", "hello", "sub/deep"):
        os.utime(top / name, (EPOCH - 1000, EPOCH - 1000), follow_symlinks=False)
    return str(top)


@for_every_user
@pytest.mark.usefixtures("busybox_image")
def test_the_same_context_makes_the_same_image_everywhere(
    wherry: Cli, host_dir: str, reference: str
) -> None:
    told = built(wherry, host_dir, "--no-cache", "--build-arg", f"SOURCE_DATE_EPOCH={EPOCH}")

    assert told == built(wherry, host_dir) == reference
    assert str(inspect(wherry, "made")["Created"]).startswith(MADE)


@pytest.mark.usefixtures("busybox_image")
def test_without_a_moment_things_are_made_when_they_are(wherry: Cli, host_dir: str) -> None:
    Path(host_dir, "Dockerfile").write_text("FROM busybox\nRUN echo a > /a\n")

    wherry("build", NO_NETWORK, "-t", "made", host_dir, timeout=120)

    created = datetime.fromisoformat(str(inspect(wherry, "made")["Created"])[:19] + "+00:00")
    changed = wherry("run", "--rm", NO_NETWORK, "made", "stat", "-c", "%Y", "/a").stdout
    # As far as the clocks of a host and a guest agree.
    for moment in (created.timestamp(), float(changed)):
        assert abs(moment - time.time()) < 600


def moment_of(wherry: Cli, *options: str, env: dict[str, str] | None = None) -> list[str]:
    """What RUN is told, what its file has, and what the image says."""
    wherry("build", NO_NETWORK, "-q", "-t", "made", *options, env=env, timeout=120)
    shown = wherry("run", "--rm", NO_NETWORK, "made", "sh", "-c", "cat /told; stat -c %Y /told")
    return [*shown.lines, str(inspect(wherry, "made")["Created"])[:10]]


def test_a_dockerfile_can_tell_the_moment_itself(
    wherry: Cli, busybox_image: str, host_dir: str
) -> None:
    Path(host_dir, "Dockerfile").write_text(
        f"ARG SOURCE_DATE_EPOCH=86400\nFROM {busybox_image}\nARG SOURCE_DATE_EPOCH\n"
        "RUN echo $SOURCE_DATE_EPOCH > /told\n"
    )

    assert moment_of(wherry, host_dir) == ["86400", "86400", "1970-01-02"]
    others = {"SOURCE_DATE_EPOCH": "172800"}
    assert moment_of(wherry, host_dir, env=others) == ["172800", "172800", "1970-01-03"]


def test_the_moment_can_be_that_of_a_commit(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    text = f"FROM {busybox_image}\nARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /told\n"
    with repository(host_dir, {"Dockerfile": text}) as url:
        tree = f"{host_dir}/repository"
        settings = ("-c", "user.name=a", "-c", "user.email=a@b")
        moment = {**os.environ, "GIT_COMMITTER_DATE": "@86400 +0000"}
        words = ("commit", "-q", "--amend", "--no-edit")
        subprocess.run(["git", "-C", tree, *settings, *words], check=True, env=moment)
        found = moment_of(wherry, "--build-arg", "SOURCE_DATE_EPOCH=context", url)
        refused = wherry("build", "-", input=text, check=False,
                         env={"SOURCE_DATE_EPOCH": "context"})  # fmt: skip

    assert found == ["86400", "86400", "1970-01-02"]
    assert refused.returncode == 1
    assert "SOURCE_DATE_EPOCH=context: the context is of no commit" in refused.stderr
