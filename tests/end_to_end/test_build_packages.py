"""Packages that a Dockerfile installs on a base image of Debian."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.accounts import current_account
from support.settings import as_root, as_rootless, as_single_uid
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.cli import Cli

pytestmark = pytest.mark.network

# Fetched, unpacked and configured on a busy machine.
PATIENCE = 240

DOCKERFILE = """\
FROM debian:bookworm
ARG SANDBOX=_apt
RUN echo "APT::Sandbox::User \"$SANDBOX\";" > /etc/apt/apt.conf.d/sandbox
RUN apt-get update -q && apt-get install -qy --no-install-recommends hello
RUN hello > /said
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A base image, which is made once."""
    path = tmp_path_factory.mktemp("base") / "debian.tar"
    world = World(current_account())
    try:
        world.wherry("bootstrap", "debian:bookworm", timeout=PATIENCE)
        world.wherry("save", "-o", str(path), "debian:bookworm")
    finally:
        world.close()
    yield path


def installs(wherry: Cli, archive: Path, *options: str) -> None:
    wherry("load", input=archive.read_bytes(), timeout=PATIENCE)

    wherry(
        *("build", "--network", "host", *options, "-t", "app", "-"),
        input=DOCKERFILE.encode(),
        timeout=PATIENCE,
    )

    shown = wherry("run", "--rm", "--network", "none", "app", "cat", "/said")
    assert shown.stdout == "Hello, world!\n"


@as_root
def test_root_installs_packages(wherry: Cli, archive: Path) -> None:
    installs(wherry, archive)


@as_rootless
def test_a_user_with_ranges_of_ids_installs_packages(wherry: Cli, archive: Path) -> None:
    installs(wherry, archive)


@as_single_uid
def test_a_user_with_one_id_installs_packages(wherry: Cli, archive: Path) -> None:
    """There is no other user that apt could become."""
    installs(wherry, archive, "--build-arg", "SANDBOX=root")
