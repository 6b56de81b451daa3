"""A monitor that is killed while its container is being made, and whoever comes next."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from support.settings import OFFLINE, as_root
from support.waiting import Deadline, wait_until
from wherry_linux.cgroups import Cgroup

if TYPE_CHECKING:
    from support.cli import Cli
    from support.world import World


class HalfMade:
    """A container whose monitor was killed: its first process is frozen on its way."""

    def __init__(self, wherry: Cli, image: str) -> None:
        self._wherry = wherry
        self._image = image
        for _ in range(20):
            # Its program runs within milliseconds: on a busy machine it may be too late.
            if self._catch():
                return
            self._group.freeze(frozen=False)
            wherry("rm", "-f", "victim")
        raise AssertionError("a container was never caught while it was being made")

    def _catch(self) -> bool:
        made = (OFFLINE, "--name", "victim", self._image, "sleep", "1000")
        self.id = self._wherry("create", *made).stdout.strip()
        self._group = Cgroup(f"/wherry/{self.id}")
        command = self.start("start", "victim")
        soon = Deadline(60, "its control group")
        while not os.path.isdir(self._group.directory):
            soon.left()
        self._group.freeze(frozen=True)
        wait_until(lambda: bool(self._group.processes()), Deadline(60, "its first process"))
        state = self._wherry("inspect", "-f", "{{.State.Status}}", "victim").stdout
        if state != "created\n":
            command.wait(60)
            return False
        for pid in (_monitor_of(command), command.pid):
            os.kill(pid, 9)
        command.wait(60)
        return True

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        null = subprocess.DEVNULL
        return self._wherry.start(*argv, stdin=null, stdout=null, stderr=null)

    def end(self) -> None:
        """End its processes, as the end of a monitor does."""
        self._group.kill()


def _monitor_of(command: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
    return int(children[0])


def _waits_for_a_lock(pid: int) -> bool:
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(row[1] == "->" and row[5] == str(pid) for row in rows)


def _finish(command: subprocess.Popen[bytes], victim: HalfMade) -> int:
    """Let a command get at the container's lock only once it has found it held."""
    wait_until(lambda: _waits_for_a_lock(command.pid), Deadline(60, "it waits for the lock"))
    victim.end()
    return command.wait(60)


@as_root
def test_what_a_half_made_container_has_goes_with_it(
    wherry: Cli, world: World, busybox_image: str
) -> None:
    victim = HalfMade(wherry, busybox_image)

    code = _finish(victim.start("rm", "-f", "victim"), victim)

    assert code == 0
    assert os.listdir(f"{world.root}/run/runtime") == []
    assert not world.left()


@as_root
def test_a_half_made_container_is_started_anew(wherry: Cli, busybox_image: str) -> None:
    victim = HalfMade(wherry, busybox_image)

    code = _finish(victim.start("start", "victim"), victim)

    assert code == 0
    assert wherry("inspect", "-f", "{{.State.Status}}", "victim").stdout == "running\n"
