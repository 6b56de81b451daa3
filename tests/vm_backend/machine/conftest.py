"""Machines for tests: one for all that only use it, and one of its own for each that harms it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.machines import SharedMachine, close_world, open_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.cli import Cli
    from support.world import World


@pytest.fixture
def own_world() -> Iterator[World]:
    """A world whose machine is not there yet."""
    world = open_world()
    yield world
    close_world(world)


@pytest.fixture
def own_machine(own_world: World) -> Cli:
    """`wherry(…)` with a machine of this test's own, which is not there yet."""
    return own_world.wherry


@pytest.fixture
def machine(shared_machine: SharedMachine) -> Iterator[Cli]:
    """`wherry(…)` with a machine that runs, and has the image busybox."""
    yield shared_machine.wherry
    shared_machine.clear()
