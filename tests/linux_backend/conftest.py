"""Fixtures for tests of what a Linux kernel is asked for."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from support.accounts import current_account, rootless_account

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.machine import Machine

ACCOUNTS = [
    pytest.param("root", marks=pytest.mark.linux),
    pytest.param("rootless", marks=[pytest.mark.linux, pytest.mark.rootless]),
]


@pytest.fixture(params=ACCOUNTS)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    from support.machine import Machine
    from support.world import World

    account = rootless_account() if request.param == "rootless" else current_account()
    world = World(account)
    monkeypatch.setenv("WHERRY_ROOT", world.root)
    machine = Machine(world)
    yield machine
    machine.inside(lambda: shutil.rmtree(world.root))
    world.close()
