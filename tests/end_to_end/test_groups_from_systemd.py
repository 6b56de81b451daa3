"""A user's control groups on a host with systemd: in a container of ours that runs one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.busybox import busybox_archive
from support.settings import as_root
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.cli import Cli, Result

pytestmark = [pytest.mark.network, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).parents[2]
PACKAGES = (
    "systemd-sysv", "dbus-user-session", "libpam-systemd", "uidmap", "python3", "python3-jeepney",
    "python3-platformdirs",
)  # fmt: skip
ROOTS = ":".join(f"/wherry/{name}" for name in ("core", "linux_backend", "vm_backend", "vmimage"))
# A session as sshd and login open it: a scope that is root's.
SESSION = (
    "systemd-run -q --scope --uid=1000 --gid=1000 --slice=user-1000.slice env HOME=/home/u"
    " XDG_RUNTIME_DIR=/run/user/1000 WHERRY_ROOT=/tmp/u PYTHONDONTWRITEBYTECODE=1"
    f" PYTHONPATH={ROOTS}"
).split()
MANAGER = "/user.slice/user-1000.slice/user@1000.service"


class Host:
    """A container in which systemd runs, and a user without root in it."""

    def __init__(self, wherry: Cli) -> None:
        self._wherry = wherry
        wherry("bootstrap", "debian:bookworm", "--include", ",".join(PACKAGES), timeout=240)
        wherry(
            "run", "-d", "-t", "--name", "host", "--privileged", "--network", "none",
            "--env", "container=docker", "--tmpfs", "/run", "--tmpfs", "/tmp",
            "--stop-signal", "RTMIN+3", "--volume", f"{REPOSITORY}:/wherry:ro",
            "debian:bookworm", "/sbin/init",
        )  # fmt: skip
        wait_until(self._is_up, Deadline(60, "systemd to be up"))
        self.root("useradd -m -u 1000 u && loginctl enable-linger u")
        bus = "test -S /run/user/1000/bus"
        wait_until(
            lambda: self._wherry("exec", "host", "sh", "-c", bus, check=False).returncode == 0,
            Deadline(60, "the user's systemd to be up"),
        )

    def _is_up(self) -> bool:
        told = self._wherry("exec", "host", "systemctl", "is-system-running", check=False)
        return told.stdout.strip() in ("running", "degraded")

    def root(self, script: str) -> str:
        return self._wherry("exec", "host", "sh", "-c", script).stdout

    def user(self, *argv: str, check: bool = True) -> Result:
        """`wherry ARGV…`, each in a session of its own."""
        line = shlex.join([*SESSION, "python3", "-m", "wherry", *argv])
        return self._wherry("exec", "host", "sh", "-c", line, check=check)

    def load_busybox(self) -> None:
        line = shlex.join([*SESSION, "python3", "-m", "wherry", "load"])
        self._wherry("exec", "-i", "host", "sh", "-c", line, input=busybox_archive())


@as_root
def test_systemd_makes_a_scope_for_a_container_of_a_login_session(wherry: Cli) -> None:
    host = Host(wherry)
    host.load_busybox()

    host.user("run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "1000")
    identity = host.user("inspect", "-f", "{{.Id}}", "one").stdout.strip()
    pid = host.user("inspect", "-f", "{{.State.Pid}}", "one").stdout.strip()
    scope = f"{MANAGER}/app.slice/wherry-{identity}.scope"

    assert host.root(f"grep ^0: /proc/{pid}/cgroup") == f"0::{scope}/wherry/{identity}\n"
    listed = host.user("exec", "one", "echo", "joined")
    assert listed.stdout == "joined\n"
    host.user("pause", "one")
    assert host.user("ps", "--format", "{{.Status}}").stdout.endswith("(Paused)\n")
    host.user("unpause", "one")

    # What systemd delegates holds; what it does not is told of.
    delegated = host.root(f"cat /sys/fs/cgroup{MANAGER}/cgroup.controllers").split()
    limited = host.user("run", "--rm", "-m", "64m", "--network", "none", "busybox", "sh", "-c",
                        "cat /sys/fs/cgroup/memory.max 2>/dev/null || echo none")  # fmt: skip
    assert limited.stdout == ("67108864\n" if "memory" in delegated else "none\n")
    assert ("memory limits are discarded" in limited.stderr) is ("memory" not in delegated)

    host.user("rm", "-f", "one")
    units = "systemctl --user -M u@ list-units --type=scope --no-legend --plain 'wherry-*'"
    wait_until(lambda: host.root(units) == "", Deadline(60, "the scopes to end"))
    assert host.root(f"find /sys/fs/cgroup{MANAGER} -name '*wherry*'") == ""

    host.root("rm -r /usr/lib/python3/dist-packages/jeepney")
    refused = host.user("run", "--rm", "--network", "none", "busybox", "true", check=False)
    assert refused.returncode == 125
    assert "cannot enter a control group of this user's" in refused.stderr
    assert "it takes the package jeepney" in refused.stderr
    assert host.user("ps", "-aq").stdout == ""
