"""Where WHERRY_ROOT may be: wherever its user has room."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.busybox import busybox_archive
from support.settings import OFFLINE, on_linux
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.cli import Cli
    from support.world import World

_DEEP = "/".join(("x" * 200, "y" * 200))
_MARKS = "a b\nq:u,o\\te\"'" + os.fsdecode(b"\xff\xfe")


@on_linux  # in a machine the store has a place of its own
@pytest.mark.parametrize(
    "name", [_MARKS, _DEEP, "link", "."], ids=["marks", "deep", "link", "relative"]
)
def test_container_runs_wherever_the_root_is(wherry: Cli, world: World, name: str) -> None:
    place = f"{world.root}/{name}"
    if name == "link":
        os.symlink("target", place)
        os.mkdir(f"{world.root}/target")
        os.chown(f"{world.root}/target", world.account.uid, world.account.gid)
        os.lchown(place, world.account.uid, world.account.gid)
    wherry.environment["WHERRY_ROOT"] = os.path.relpath(place, wherry.directory)
    wherry("load", input=busybox_archive())
    volume = f"{wherry.directory}/volume"
    os.mkdir(volume)
    os.chown(volume, world.account.uid, world.account.gid)

    wherry("run", OFFLINE, "-d", "-v", f"{volume}:/v", "-v", "named:/n", "--name", "box",
           "busybox", "sh", "-c", "echo hello; sleep 1000")  # fmt: skip
    state = json.loads(next(Path(place).glob("data/containers/*/state.json")).read_text())
    command_line = Path(f"/proc/{state['MonitorPid']}/cmdline")
    # It goes on in an interpreter of its own, which has to find everything again.
    wait_until(lambda: b"\0-I\0" in command_line.read_bytes(), Deadline(60, "handover"))

    assert wherry("exec", "box", "cat", "/proc/1/comm").stdout == "sleep\n"
    assert wherry("logs", "box").stdout == "hello\n"
    assert wherry("cp", "box:/etc/hostname", "-").output
    wherry("commit", "box", "new")
    wherry("stop", "-t", "0", "box")
    wherry("start", "box")
    wherry("rm", "-f", "box")
    assert wherry("system", "check").returncode == 0
