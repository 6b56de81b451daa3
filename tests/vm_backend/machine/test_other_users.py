"""Other users of this host, who have no say in a machine."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.accounts import current_account, rootless_account
from support.guest_images import guest_image
from support.machines import BOOT, close_world, inspect, start
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.vm,
    pytest.mark.network,
    pytest.mark.skipif("os.geteuid() != 0", reason="needs root to be another user"),
]

SPEAK = r"""
import socket, sys
stream = socket.socket(socket.AF_UNIX)
stream.settimeout(60)
try:
    stream.connect(sys.argv[1])
    message = b'{"op": "state"}'
    stream.sendall(b'\3' + len(message).to_bytes(4, 'big') + message)
    print(stream.recv(1000))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture
def users_world() -> Iterator[World]:
    """A world of an unprivileged user, with a guest image that this user can read."""
    world = World(rootless_account())
    image = f"{world.base}/image"
    shutil.copytree(guest_image(), image)
    for path in (Path(image), *Path(image).iterdir()):
        os.chown(path, world.account.uid, world.account.gid)
    world.wherry.environment.update(WHERRY_BACKEND="vm", WHERRY_GUEST=image)
    yield world
    close_world(world)


def spoken_by(uid: int, path: str) -> str:
    """What the supervisor at `path` answers a user."""
    return subprocess.run(
        ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups",
         "/usr/bin/python3", "-I", "-c", SPEAK, path],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout.strip()  # fmt: skip


def test_an_unprivileged_user_has_a_machine_that_nobody_else_gets_at(users_world: World) -> None:
    wherry = users_world.wherry
    start(wherry)
    assert wherry("ps", "--quiet").lines == []

    data, run = (Path(users_world.root, each, "machines/default") for each in ("data", "run"))
    for path in (*data.iterdir(), *run.iterdir()):
        assert path.stat().st_uid == users_world.account.uid
        if path.name in ("key", "host_key", "data.img", "supervisor.json", "machine.json"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    other = current_account().uid + 65534
    socket = f"{run}/supervisor.sock"
    assert spoken_by(other, socket) == "PermissionError"

    # Even where somebody has opened the way to it.
    for directory in (users_world.base, users_world.root, run.parents[1], run.parent, run):
        os.chmod(directory, 0o755)
    os.chmod(socket, 0o777)
    assert spoken_by(other, socket) in ("b''", "ConnectionResetError", "BrokenPipeError")
    assert "running" in spoken_by(users_world.account.uid, socket)

    pid = int(str(inspect(wherry)["Pid"]))
    assert os.stat(f"/proc/{pid}").st_uid == users_world.account.uid


@pytest.mark.parametrize("place", ["data", "run"])
def test_a_place_of_another_user_is_not_believed(own_world: World, place: str) -> None:
    """It may hold a socket where somebody waits for what we have to say."""
    path = Path(own_world.root, place)
    path.mkdir()
    os.chown(path, rootless_account().uid, -1)

    for words in (("machine", "init"), ("machine", "start"), ("ps",)):
        result = own_world.wherry(*words, check=False, timeout=BOOT)
        assert result.returncode != 0
        assert "belongs to user" in result.stderr
        assert result.stderr.startswith("wherry: ")


def test_the_name_of_a_machine_may_be_long_and_its_place_deep(own_world: World) -> None:
    """The path of a UNIX socket has 108 bytes."""
    wherry = own_world.wherry
    name = "m" * 64
    environment = {
        "WHERRY_ROOT": f"{own_world.directory}/{'deep/' * 20}",
        "WHERRY_MACHINE": name,
    }

    unknown = wherry("ps", env=environment, check=False)
    wherry("machine", "init", name, env=environment)
    listed = wherry("ps", "--quiet", env=environment, timeout=BOOT)
    states = wherry("machine", "ls", "--format", "{{.State}}", env=environment)
    wherry("machine", "rm", "--force", name, env=environment)

    assert unknown.returncode == 1
    assert unknown.stderr.startswith(f"wherry: no such machine: {name}\n")
    assert (listed.lines, states.lines) == ([], ["running"])
