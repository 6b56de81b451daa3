"""Machines under QEMU for the tests: worlds that have one, and one that many tests share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from support.accounts import current_account
from support.busybox import busybox_archive
from support.guest_images import guest_image
from support.waiting import Deadline, wait_until
from support.world import World

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.cli import Cli, Result

BOOT = 180
"""Seconds that an emulated machine may take where others use the processors too."""

_BUILDS = ("build-cache", "build-contexts")
_KINDS = ("containers", "volumes", "networks", "secrets", *_BUILDS)

# The shell's own words alone: a program costs an emulated machine more than the answer is worth.
_SHOW = """
show() { for each in "$@"; do if [ -e "$each" ]; then echo "$each"; fi; done; }
cd /var/lib/wherry
show containers/* volumes/* networks/* secrets/*
show build-cache/*.json build-cache/mounts/* build-contexts/*
line=
read -r line <images/index.json
echo "$line"
if [ -e events.jsonl ]; then : >events.jsonl; fi
"""


def open_world() -> World:
    """A world whose machine is not there yet."""
    world = World(current_account(), in_machine=True)
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
        # The record of the default network comes with the first container on it, and stays.
        self._clean = self._look() | {"networks/bridge.json"}

    def lend(self, wherry: Cli) -> None:
        """Let the commands of another world be carried out here."""
        for name in ("WHERRY_BACKEND", "WHERRY_GUEST", "WHERRY_ROOT"):
            wherry.environment[name] = self.wherry.environment[name]

    def clear(self) -> None:
        """Remove what a test has left in it. Raises if something stays all the same."""
        if left := self._left():
            self._remove(left)
            wait_until(lambda: not self._left(), Deadline(60, f"{left} to be removed"))

    def _left(self) -> dict[str, list[str]]:
        """The names of what a test has left, by what they are; "images" if they are others."""
        left: dict[str, list[str]] = {}
        for line in self._look() - self._clean:
            kind, _, name = line.partition("/")
            left.setdefault(kind if name and kind in _KINDS else "images", []).append(name)
        return left

    def _remove(self, left: Mapping[str, list[str]]) -> None:
        if containers := left.get("containers"):
            # One of them may be about to remove itself.
            self.wherry("rm", "--force", "--volumes", *containers, check=False, timeout=120)
        if "volumes" in left:
            self.wherry("volume", "prune", "--all", "--force")
        if "networks" in left:
            self.wherry("network", "prune", "--force")
        if "secrets" in left:
            self.wherry("secret", "rm", *self.wherry("secret", "ls", "--quiet").lines)
        if not left.keys().isdisjoint(_BUILDS):
            self.wherry("builder", "prune", "--all", "--force")
        if "images" in left:
            if images := set(self.wherry("images", "--all", "--quiet", "--no-trunc").lines):
                self.wherry("rmi", "--force", *images)
            self.wherry("load", input=busybox_archive(), timeout=BOOT)

    def _look(self) -> set[str]:
        """What the store has, in the words of its files; what was told of it is forgotten."""
        return set(self.wherry("machine", "ssh", "default", "sh", "-c", _SHOW).lines)

    def close(self) -> None:
        """End it."""
        close_world(self.world)
