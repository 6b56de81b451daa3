"""Machines for tests: one for all that only use it, and one of its own for each that harms it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.accounts import current_account
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.cli import Cli


def _open_world() -> World:
    from support.guest_images import guest_image

    world = World(current_account())
    world.wherry.environment.update(WHERRY_BACKEND="vm", WHERRY_GUEST=guest_image())
    return world


def _close_world(world: World) -> None:
    try:
        world.wherry("machine", "rm", "--force", "default", check=False)
    finally:
        world.close()


@pytest.fixture
def own_world() -> Iterator[World]:
    """A world whose machine is not there yet."""
    world = _open_world()
    yield world
    _close_world(world)


@pytest.fixture
def own_machine(own_world: World) -> Cli:
    """`wherry(…)` with a machine of this test's own, which is not there yet."""
    return own_world.wherry


@pytest.fixture(scope="session")
def _shared_world() -> Iterator[World]:
    from support.busybox import busybox_archive

    world = _open_world()
    try:
        world.wherry("load", input=busybox_archive(), timeout=180)
    except BaseException:
        _close_world(world)
        raise
    yield world
    _close_world(world)


@pytest.fixture
def machine(_shared_world: World) -> Iterator[Cli]:
    """`wherry(…)` with a machine that runs, and has the image busybox."""
    yield _shared_world.wherry
    wherry = _shared_world.wherry
    if ids := wherry("ps", "--all", "--quiet").lines:
        wherry("rm", "--force", "--volumes", *ids)
