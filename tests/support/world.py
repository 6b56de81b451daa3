"""A world of its own for each test: WHERRY_ROOT, home and runtime directory.

When the test is over its containers are removed, and then nothing may be left: no
process, mount, cgroup, network link or network namespace.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from support.cli import Cli
from support.waiting import Deadline, wait_gone, wait_until

if TYPE_CHECKING:
    from support.accounts import Account

# In /tmp itself, and short: the name of a UNIX socket has 108 bytes.
_PLACE = "/tmp"


class World:
    """The directories of one test, all below `base`, owned by the account."""

    def __init__(self, account: Account, *, in_machine: bool = False) -> None:
        """`in_machine`: its containers are not on this host, and leave nothing in its kernel."""
        self.account = account
        self._in_machine = in_machine
        self.base = tempfile.mkdtemp(prefix="w", dir=_PLACE)
        self.root = f"{self.base}/r"
        self.home = f"{self.base}/home"
        self.directory = f"{self.base}/host"
        runtime = f"{self.base}/x"
        for directory in (self.base, self.root, self.home, self.directory, runtime):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            if os.geteuid() == 0:
                os.chown(directory, account.uid, account.gid)
        self.wherry = Cli(
            account,
            {"WHERRY_ROOT": self.root, "HOME": self.home, "XDG_RUNTIME_DIR": runtime},
            self.directory,
        )
        # Of the default network, and of those that are made later.
        self._bridges = {f"wherry-{sha256(f'{self.root}/data'.encode()).hexdigest()[:8]}"}
        self._before = self._kernel_objects()

    def close(self) -> None:
        """Remove the containers and the directories. Raises if anything else was left."""
        try:
            self._remove_containers()
            left = self.left()
        finally:
            self._clean_up()
        assert not left, "left behind:\n  " + "\n  ".join(left)

    def _remove_containers(self) -> None:
        if os.path.isdir(f"{self.root}/data/containers"):
            ids = self.wherry("ps", "--all", "--quiet", "--no-trunc").lines
            if ids:
                self.wherry("rm", "--force", "--volumes", *ids)
        self._note_bridges()
        if os.path.isdir(f"{self.root}/data/networks"):
            # Bridges stay when no container is on them any more.
            self.wherry("system", "reset", "--force")

    def left(self) -> list[str]:
        """What is still there of this test, one line each."""
        try:
            # The monitor of a container ends a moment after `rm` has returned.
            wait_gone(self.processes())
        except TimeoutError:
            pass
        left = [f"process {pid}: {_command_line(pid)}" for pid in self.processes()]
        left += [f"mount {target}" for target in self._mounts()]
        # What tests that run beside this one are about to remove goes by itself.
        with contextlib.suppress(TimeoutError):
            wait_until(
                lambda: not self._kernel_objects() - self._before,
                Deadline(3, "kernel objects to go"),
            )
        return left + sorted(self._lasting_objects())

    def left_without_containers(self) -> list[str]:
        """The same, and what the store has of containers although there are none."""
        found = self.left()
        for directory in (
            "data/containers", "data/names", "run/containers", "run/runtime", "run/secrets",
        ):  # fmt: skip
            path = f"{self.root}/{directory}"
            if os.path.isdir(path):
                found += [f"{directory}/{name}" for name in os.listdir(path)]
        return found

    def _lasting_objects(self) -> set[str]:
        """What is new in the kernel and stays: another test's comes and goes."""
        left = self._kernel_objects() - self._before
        end = time.monotonic() + 3
        while left and time.monotonic() < end:
            time.sleep(0.05)
            left &= self._kernel_objects()
        return left

    def _kernel_objects(self) -> set[str]:
        if self._in_machine:
            return set()
        self._note_bridges()
        return {each for each in _kernel_objects() if self._may_be_ours(each)}

    def _note_bridges(self) -> None:
        """Learn from the events which networks have been made here."""
        for line in _read(f"{self.root}/data/events.jsonl").splitlines():
            # Whoever was killed may have left the last line in part.
            if made := re.search(rb'"network","Action":"create","Actor":{"ID":"(\w{8})', line):
                self._bridges.add(f"wherry-{made[1].decode()}")

    def _may_be_ours(self, thing: str) -> bool:
        """Not the bridge of another world, which may stay for as long as that one."""
        kind, _, name = thing.partition(" ")
        return kind != "link" or not name.startswith("wherry-") or name in self._bridges

    def processes(self) -> list[int]:
        """The processes that have to do with this world, whatever they did to hide it."""
        mine = self.base.encode()
        own_mounts = _link("/proc/self/ns/mnt")
        found = []
        for name in _names("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            process = f"/proc/{name}"
            # A container's own process knows nothing of us, but its root is one of our mounts.
            apart = _link(f"{process}/ns/mnt") not in ("", own_mounts)
            if (
                mine in _read(f"{process}/environ")
                or mine in _read(f"{process}/cmdline")
                or _link(f"{process}/cwd").startswith(self.base)
                or (apart and mine in _root_mount(process))
            ):
                found.append(int(name))
        return found

    def _mounts(self) -> list[str]:
        targets = [line.split()[4] for line in _read("/proc/self/mountinfo").decode().splitlines()]
        return [target for target in targets if target.startswith(f"{self.base}/")]

    def _clean_up(self) -> None:
        """Take away what is there, also where the test failed."""
        processes = self.processes()
        for pid in processes:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        wait_gone(processes)
        for target in reversed(self._mounts()):
            subprocess.run(["umount", "--lazy", target], check=False)
        remove_tree(self.base)


def remove_tree(path: str) -> None:
    """Remove `path` with what belongs to subordinate ids."""
    if os.geteuid() == 0:
        shutil.rmtree(path)
        return
    # In a user namespace those ids are ours; without a range there are no such files.
    argv = ["unshare", "--user", "--map-root-user", "--map-auto", "rm", "-rf", path]
    subprocess.run(argv, capture_output=True, check=False)
    shutil.rmtree(path, ignore_errors=True)


def _kernel_objects() -> set[str]:
    """What wherry makes in the kernel that has a name: cgroups, network links, namespaces."""
    found = set()
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        # Below `wherry`, which itself stays. A group that is in use belongs to a test that
        # runs beside this one.
        found |= {
            f"cgroup {directory}/{name}"
            for name in names
            if "/wherry/" in f"{directory}/" and not _read(f"{directory}/{name}/cgroup.procs")
        }
    found |= {f"link {name}" for name in _names("/sys/class/net") if name.startswith("wherry")}
    found |= {f"network namespace {name}" for name in _names("/run/netns") if "wherry" in name}
    return found


def _root_mount(process: str) -> bytes:
    """What /proc/PID/mountinfo says of the root; others merely have the mount, by a copy."""
    lines = _read(f"{process}/mountinfo").splitlines()
    return b"\n".join(line for line in lines if line.split()[4] == b"/")


def _names(directory: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(directory)]
    except FileNotFoundError:
        return []


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _command_line(pid: int) -> str:
    return _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace")
