"""Which tests run here, and the fixtures that every test may use.

A test that needs more than Python carries a mark (see pyproject.toml). Where the
machine has not got it the test is skipped with its reason; for the marks named in
WHERRY_TEST_REQUIRE that is a failure instead.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from support.requirements import MARKS, cannot_run, need_tool, required_marks
from support.settings import SETTINGS, Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.accounts import Account
    from support.cli import Cli
    from support.machines import SharedMachine
    from support.outside import Outside
    from support.terminal import Terminal, Tmux
    from support.world import World


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--lanes", action="store_true", help="run the tests of machines beside the others"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Whatever the shell gives: what one user's test makes another user's reads, and a
    command that is hung up or interrupted (which nohup and `&` would keep from it) ends.
    """
    os.umask(0o022)
    if hangup := getattr(signal, "SIGHUP", None):
        signal.signal(hangup, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Neither an example nor how it is thought up takes longer for another reason than a busy host.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")
    if config.getoption("lanes"):
        from support.lanes import begin

        begin(config)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run, or fail where it has to."""
    marks = [mark for mark in MARKS if item.get_closest_marker(mark)]
    for mark in marks:
        reason = cannot_run(mark, rootless=not {"rootless", "single_uid"}.isdisjoint(marks))
        if reason and mark in required_marks():
            pytest.fail(f"{reason} (and WHERRY_TEST_REQUIRE asks for {mark})", pytrace=False)
        if reason:
            pytest.skip(reason)


@pytest.fixture(params=SETTINGS)
def setting(request: pytest.FixtureRequest) -> Setting:
    """The backend and the user; see support/settings.py."""
    chosen: Setting = request.param
    return chosen


@pytest.fixture
def account(setting: Setting) -> Account:
    """Who runs the command under test."""
    from support import accounts

    makers: dict[str, Callable[[], Account]] = {
        "root": accounts.current_account,
        "current": accounts.current_account,
        "rootless": accounts.rootless_account,
        "single": accounts.single_uid_account,
    }
    return makers[setting.user]()


@pytest.fixture(scope="session")
def shared_machine() -> Iterator[SharedMachine]:
    """The machine that all tests use which need one and do it no harm."""
    from support.machines import SharedMachine

    machine = SharedMachine()
    yield machine
    machine.close()


@pytest.fixture
def world(account: Account, setting: Setting, request: pytest.FixtureRequest) -> Iterator[World]:
    """A WHERRY_ROOT, home and runtime directory for this test; nothing may be left of them."""
    from support.world import World

    machine: SharedMachine | None = None
    if setting.backend == "vm":
        machine = request.getfixturevalue("shared_machine")
    world = World(account, in_machine=machine is not None)
    world.wherry.environment["WHERRY_BACKEND"] = setting.backend
    if machine is not None:
        machine.lend(world.wherry)
    yield world
    try:
        if machine is not None:
            machine.clear()
    finally:
        world.close()


@pytest.fixture
def wherry_root(world: World) -> str:
    """The WHERRY_ROOT of this test."""
    return world.root


@pytest.fixture
def wherry(world: World) -> Cli:
    """`wherry("run", "--rm", …)`: the installed command, in the world of this test."""
    return world.wherry


@pytest.fixture
def host_dir(world: World) -> str:
    """A directory of the host that belongs to the user of this test; commands start in it."""
    return world.directory


@pytest.fixture
def outside(world: World, setting: Setting) -> Outside:
    """`outside("readlink", …)`: a program on the system that runs the containers."""
    from support.outside import Outside

    return Outside(world, setting)


@pytest.fixture(scope="session")
def _seeds() -> Iterator[dict[str, World]]:
    """One world per user with busybox loaded, copied into the world of each test."""
    from support.world import remove_tree

    seeds: dict[str, World] = {}
    yield seeds
    for seed in seeds.values():
        remove_tree(seed.base)


@pytest.fixture
def busybox_image(world: World, setting: Setting, _seeds: dict[str, World]) -> str:
    """An image with busybox, in the store of this test's world; its name."""
    if setting.backend == "vm":
        return "busybox"  # it is in the machine already
    from support.busybox import busybox_archive
    from support.world import World

    name = world.account.name
    if name not in _seeds:
        seed = World(world.account)
        try:
            seed.wherry("load", input=busybox_archive())
        except BaseException:
            seed.close()
            raise
        _seeds[name] = seed
    data = f"{_seeds[name].root}/data"
    subprocess.run(["cp", "-a", "--reflink=auto", data, f"{world.root}/"], check=True)
    return "busybox"


@pytest.fixture
def terminal(wherry: Cli) -> Iterator[Callable[..., Terminal]]:
    """`terminal("run", "-it", …, rows=24, columns=80)`: the command on a pty."""
    from support.terminal import Terminal

    opened: list[Terminal] = []

    def open_terminal(*argv: str, rows: int = 24, columns: int = 80) -> Terminal:
        opened.append(Terminal(wherry, *argv, rows=rows, columns=columns))
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


@pytest.fixture
def tmux(wherry: Cli) -> Iterator[Callable[..., Tmux]]:
    """`tmux("run", "-it", …)`: the command inside tmux."""
    from support.terminal import Tmux

    need_tool("tmux")
    opened: list[Tmux] = []

    def open_tmux(*argv: str, rows: int = 24, columns: int = 80) -> Tmux:
        opened.append(Tmux(wherry, *argv, rows=rows, columns=columns))
        return opened[-1]

    yield open_tmux
    for one in opened:
        one.close()
