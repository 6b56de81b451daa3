"""Machines under QEMU for the tests: worlds that have one, and one that many tests share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from support.accounts import current_account
from support.busybox import busybox_archive
from support.guest_images import guest_image
from support.world import World

if TYPE_CHECKING:
    from support.cli import Cli, Result

BOOT = 180
"""Seconds that an emulated machine may take where others use the processors too."""

# The shell's own words alone: a program costs an emulated machine more than the answer is worth.
_SHOW = """
show() { for each in "$@"; do if [ -e "$each" ]; then echo "$each"; fi; done; }
cd /var/lib/wherry
show containers/* volumes/* networks/* secrets/*
while read -r line; do echo "$line"; done <images/index.json
echo
show /run/wherry/containers/* /run/wherry/networks/*/* /sys/fs/cgroup/wherry/*/
"""


def open_world() -> World:
    """A world whose machine is not there yet."""
    world = World(current_account())
    world.wherry.environment.update(WHERRY_BACKEND="vm", WHERRY_GUEST=guest_image())
    return world


def close_world(world: World) -> None:
    """Remove its machine, and see that nothing is left."""
    try:
        world.wherry("machine", "rm", "--force", "default", check=False)
    finally:
        world.close()


def start(wherry: Cli, **more: object) -> Result:
    return wherry("machine", "start", timeout=BOOT, **more)  # type: ignore[arg-type]


def inspect(wherry: Cli) -> dict[str, object]:
    document: dict[str, object] = json.loads(wherry("machine", "inspect").stdout)[0]
    return document


def supervisor(wherry: Cli) -> int:
    """The pid of the process that owns the machine's QEMU."""
    pid = inspect(wherry)["Pid"]
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


class SharedMachine:
    """A machine that runs for as long as the tests do, and has the image busybox."""

    def __init__(self) -> None:
        self.world = open_world()
        self.wherry = self.world.wherry
        try:
            # The directories of tests, and of the worlds that it is lent to, are below it.
            self.wherry("machine", "init", "--share", "/tmp", "--idle", "never")
            self.wherry("load", input=busybox_archive(), timeout=BOOT)
        except BaseException:
            close_world(self.world)
            raise
        self._images = self._present_images()
        self._clean = self._shown()

    def lend(self, wherry: Cli) -> None:
        """Let the commands of another world be carried out here."""
        for name in ("WHERRY_BACKEND", "WHERRY_GUEST", "WHERRY_ROOT"):
            wherry.environment[name] = self.wherry.environment[name]

    def clear(self) -> None:
        """Remove what a test has left in it. Raises if anything is there all the same."""
        if self._shown() == self._clean:
            return
        if ids := self.wherry("ps", "--all", "--quiet").lines:
            self.wherry("rm", "--force", "--volumes", *ids, timeout=120)
        self.wherry("volume", "prune", "--all", "--force")
        self.wherry("network", "prune", "--force")
        for secret in self.wherry("secret", "ls", "--quiet").lines:
            self.wherry("secret", "rm", secret)
        now = self._present_images()
        if added := now - self._images:
            self.wherry("rmi", "--force", *added)
        if self._images - now:
            self.wherry("load", input=busybox_archive(), timeout=BOOT)
        self.wherry("tag", next(iter(self._images)), "busybox:latest", check=False)

    def _present_images(self) -> set[str]:
        return set(self.wherry("images", "--all", "--quiet", "--no-trunc").lines)

    def _shown(self) -> list[str]:
        """What the store has and what runs, in the words of its files."""
        return self.wherry("machine", "ssh", "default", "sh", "-c", _SHOW).lines

    def close(self) -> None:
        """End it."""
        close_world(self.world)
