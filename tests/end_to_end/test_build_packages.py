"""Packages that a Dockerfile installs on a base image of Debian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from support.accounts import current_account
from support.building import inspect
from support.settings import as_single_uid
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
RUN echo "APT::Sandbox::User $SANDBOX;" > /etc/apt/apt.conf.d/sandbox
RUN apt-get update -q && apt-get install -qy --no-install-recommends hello && rm -rf \\
    /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/ldconfig/* /var/log/apt /var/log/dpkg.log
RUN hello > /said
"""
# With this nothing of when it was built is in the image: what tells of it has been removed.
MOMENT = {"SOURCE_DATE_EPOCH": "1700000000"}


@dataclass(frozen=True)
class Base:
    """A base image, and the id of what whoever runs the tests builds on it."""

    archive: Path
    app: str


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    """Made once."""
    path = tmp_path_factory.mktemp("base") / "debian.tar"
    world = World(current_account())
    try:
        world.wherry("bootstrap", "debian:bookworm", timeout=PATIENCE)
        world.wherry("save", "-o", str(path), "debian:bookworm")
        yield Base(path, built(world.wherry))
    finally:
        world.close()


def built(wherry: Cli, *options: str) -> str:
    wherry(
        *("build", "--network", "host", *options, "-t", "app", "-"),
        input=DOCKERFILE.encode(),
        timeout=PATIENCE,
        env=MOMENT,
    )
    return str(inspect(wherry, "app")["Id"])


def installs(wherry: Cli, base: Base, *options: str) -> str:
    wherry("load", input=base.archive.read_bytes(), timeout=PATIENCE)

    app = built(wherry, *options)

    shown = wherry("run", "--rm", "--network", "none", "app", "cat", "/said")
    assert shown.stdout == "Hello, world!\n"
    return app


@pytest.mark.timeout(4 * PATIENCE)
def test_packages_are_installed_and_the_same_everywhere(wherry: Cli, base: Base) -> None:
    assert installs(wherry, base) == base.app


@as_single_uid
def test_a_user_with_one_id_installs_packages(wherry: Cli, base: Base) -> None:
    """There is no other user that apt could become."""
    installs(wherry, base, "--build-arg", "SANDBOX=root")
