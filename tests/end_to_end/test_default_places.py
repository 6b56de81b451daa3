"""Where a user's images and containers are when no WHERRY_ROOT says so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from support.busybox import busybox_archive
from support.settings import as_rootless, as_single_uid

if TYPE_CHECKING:
    from support.cli import Cli
    from support.world import World


@pytest.fixture
def at_home(wherry: Cli, world: World) -> Cli:
    """wherry without WHERRY_ROOT; the containers it leaves are removed with the world."""
    del wherry.environment["WHERRY_ROOT"]
    return wherry


def a_container_lives_below(home: Cli, data: str, run: str) -> None:
    home("load", input=busybox_archive())
    home("run", "-d", "--network", "none", "--name", "box", "-v", "kept:/kept", "busybox",
         "sleep", "1000")  # fmt: skip
    assert home("exec", "box", "sh", "-c", "echo hello >/kept/it; cat /kept/it").stdout == "hello\n"
    assert sorted(os.listdir(f"{data}/layers/sha256")) != []
    assert os.listdir(f"{data}/volumes") == ["kept"]
    assert os.listdir(f"{run}/containers") == [home("ps", "-q", "--no-trunc").stdout.strip()]
    home("commit", "box", "copy")
    home("rm", "-f", "box")
    assert home("run", "--rm", "--network", "none", "copy", "echo", "again").stdout == "again\n"
    home("rmi", "copy", "busybox")
    home("volume", "rm", "kept")
    assert os.listdir(f"{data}/layers/sha256") == []


@as_rootless
def test_a_users_are_below_the_home_directory(at_home: Cli, world: World) -> None:
    a_container_lives_below(at_home, f"{world.home}/.local/share/wherry", f"{world.base}/x/wherry")


@as_single_uid
def test_those_of_a_user_with_one_id_too(at_home: Cli, world: World) -> None:
    at_home.environment["XDG_DATA_HOME"] = f"{world.home}/share"

    a_container_lives_below(at_home, f"{world.home}/share/wherry", f"{world.base}/x/wherry")
