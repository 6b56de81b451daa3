"""Control groups where systemd runs, root's and a user's: on a host in a container of ours."""

from __future__ import annotations

import json
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
PYTHON = f"PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={ROOTS} python3 -m wherry"
ROOT = f"env WHERRY_ROOT=/tmp/r {PYTHON}".split()
# In a session as sshd and login open it: a scope that is root's.
USER = (
    "systemd-run -q --scope --uid=1000 --gid=1000 --slice=user-1000.slice"
    f" env HOME=/home/u XDG_RUNTIME_DIR=/run/user/1000 WHERRY_ROOT=/tmp/u {PYTHON}"
).split()
MANAGER = "/user.slice/user-1000.slice/user@1000.service"
OFFLINE = "--network=none"


class Host:
    """A container in which systemd runs, as one of its users has it."""

    def __init__(self, wherry: Cli, command: list[str]) -> None:
        self._wherry = wherry
        self._command = command

    def boot(self) -> None:
        wherry = self._wherry
        wherry("bootstrap", "debian:bookworm", "--include", ",".join(PACKAGES), timeout=240)
        wherry(
            "run", "-d", "-t", "--name", "host", "--privileged", "--network", "none",
            "--env", "container=docker", "--tmpfs", "/run", "--tmpfs", "/tmp",
            "--stop-signal", "RTMIN+3", "--volume", f"{REPOSITORY}:/wherry:ro",
            "debian:bookworm", "/sbin/init",
        )  # fmt: skip
        self.wait_for("systemctl is-system-running | grep -E 'running|degraded'")
        self.sh("useradd -m -u 1000 u && loginctl enable-linger u")
        self.wait_for("test -S /run/user/1000/bus")

    def load_busybox(self) -> None:
        line = shlex.join([*self._command, "load"])
        self._wherry("exec", "-i", "host", "sh", "-c", line, input=busybox_archive())

    def __call__(self, *argv: str, check: bool = True) -> Result:
        """`wherry ARGV…`."""
        line = shlex.join([*self._command, *argv])
        return self._wherry("exec", "host", "sh", "-c", line, check=check)

    def sh(self, script: str) -> str:
        """What a script of root's prints."""
        return self._wherry("exec", "host", "sh", "-c", script).stdout

    def wait_for(self, script: str) -> None:
        def holds() -> bool:
            return self._wherry("exec", "host", "sh", "-c", script, check=False).returncode == 0

        wait_until(holds, Deadline(180, script))

    def start(self, name: str, *options: str) -> str:
        """Start a container that waits; its id."""
        return self(
            "run", "-d", "--name", name, *options, OFFLINE, "busybox", "sleep", "1000"
        ).stdout.strip()

    def group_of(self, name: str) -> str:
        return self.group_of_process(self.state(name, "Pid"))

    def group_of_process(self, pid: str) -> str:
        return self.sh(f"sed -n 's/^0:://p' /proc/{pid}/cgroup").strip()

    def state(self, name: str, key: str) -> str:
        return self("inspect", "-f", f"{{{{.State.{key}}}}}", name).stdout.strip()

    def controllers(self, group: str) -> list[str]:
        return self.sh(f"cat /sys/fs/cgroup{group}/cgroup.controllers").split()

    def wait_for_none(self, *patterns: str) -> None:
        """Wait until systemd and the tree have no such groups any more."""
        for pattern in patterns:
            self.wait_for(f'test -z "$(find /sys/fs/cgroup -name {shlex.quote(pattern)})"')


@as_root
def test_systemd_makes_a_scope_for_each_container(wherry: Cli) -> None:
    # To boot it takes longer than all that is asked of it.
    root, user = Host(wherry, ROOT), Host(wherry, USER)
    root.boot()
    for host in (root, user):
        host.load_busybox()

    check_roots(root)
    check_runtime(root)
    check_users_runtime(user)
    check_login_session(user)


def check_users_runtime(host: Host) -> None:
    """podman of a user calls its runtime as root of a user namespace that it has made."""
    words = f"unshare env {PYTHON} oci --root /tmp/u-oci --systemd-cgroup".split()
    host.sh("cp -r /srv/b /srv/u && chown -R u /srv/u")
    spec = json.loads(host.sh("cat /srv/u/config.json"))
    spec["linux"]["cgroupsPath"] = "user.slice:libpod:one"
    host.sh(f"echo {shlex.quote(json.dumps(spec))} > /srv/u/config.json")

    create = shlex.join([*USER, *words, "create", "--bundle", "/srv/u", "--pid-file", "/tmp/u.pid"])
    host.sh(f"{create} one < /dev/null > /dev/null 2> /tmp/u.err || cat /tmp/u.err")
    host(*words, "start", "one")

    group = host.group_of_process("$(cat /tmp/u.pid)")
    assert group == f"{MANAGER}/user.slice/libpod-one.scope/container"
    host(*words, "delete", "--force", "one")
    host.wait_for_none("libpod-one.scope")


def check_login_session(host: Host) -> None:
    identity = host.start("one")
    scope = f"{MANAGER}/app.slice/wherry-{identity}.scope"

    assert host.group_of("one") == f"{scope}/container"
    assert host("exec", "one", "echo", "joined").stdout == "joined\n"
    host("pause", "one")
    assert host("ps", "--format", "{{.Status}}").stdout.endswith("(Paused)\n")
    host("unpause", "one")

    host.start("two", "--cgroup-parent", "a-b.slice")
    assert host.group_of("two").startswith(f"{MANAGER}/a.slice/a-b.slice/wherry-")

    # What systemd delegates holds; what it does not is told of.
    delegated = host.controllers(MANAGER)
    limited = host("run", "--rm", "-m", "64m", OFFLINE, "busybox", "sh", "-c",
                   "cat /sys/fs/cgroup/memory.max 2>/dev/null || echo none")  # fmt: skip
    assert limited.stdout == ("67108864\n" if "memory" in delegated else "none\n")
    assert ("memory limits are discarded" in limited.stderr) is ("memory" not in delegated)

    host("rm", "-f", "one", "two")
    host.wait_for_none("wherry-*", "container")

    host.sh("rm -r /usr/lib/python3/dist-packages/jeepney")
    refused = host("run", "--rm", OFFLINE, "busybox", "true", check=False)
    assert refused.returncode == 125
    assert "cannot make a control group: systemd does not make wherry-" in refused.stderr
    assert "it takes the package jeepney" in refused.stderr
    assert host("ps", "-aq").stdout == ""


def check_roots(host: Host) -> None:
    identity = host.start("one")
    scope = f"/system.slice/wherry-{identity}.scope"

    assert host.group_of("one") == f"{scope}/container"
    assert host("info", "-f", "{{.CgroupDriver}}").stdout == "systemd\n"
    told = host.sh(f"systemctl show -p Delegate,Slice,ActiveState wherry-{identity}.scope")
    assert set(told.split()) == {"Delegate=yes", "Slice=system.slice", "ActiveState=active"}
    assert host("exec", "one", "echo", "joined").stdout == "joined\n"

    # A reload brings nothing back that systemd had.
    limits = "memory" in host.controllers("")
    if limits:
        host("update", "-m", "64m", "--memory-swap", "-1", "one")
    host("pause", "one")
    host.sh("systemctl daemon-reload")
    assert host.state("one", "Status") == "paused"
    host("unpause", "one")
    assert not limits or host.sh(f"cat /sys/fs/cgroup{scope}/container/memory.max") == "67108864\n"

    # Its scope goes, and comes back: there is one at a time.
    for _ in range(3):
        host("restart", "--time", "0", "one")
        assert host.group_of("one") == f"{scope}/container"

    host.start("sliced", "--cgroup-parent", "a-b.slice")
    assert host.group_of("sliced").startswith("/a.slice/a-b.slice/wherry-")
    identity = host.start("placed", "--cgroup-parent", "/plain")
    assert host.group_of("placed") == f"/plain/{identity}"

    # Who shuts down asks all to end, and nobody starts what has done so.
    loop = "trap 'exit 7' TERM; echo deaf no more; while :; do sleep 1 & wait; done"
    host("run", "-d", "--name", "again", "--restart=always", OFFLINE, "busybox", "sh", "-c", loop)
    unit = f"wherry-{host('inspect', '-f', '{{.Id}}', 'again').stdout.strip()}.scope"
    wait_until(lambda: host("logs", "again").stdout != "", Deadline(60, "the loop to run"))
    host.sh(f"timeout 60 systemctl stop {unit}")
    assert (host.state("again", "Status"), host.state("again", "ExitCode")) == ("exited", "7")

    # What a killed monitor leaves is nothing, without a command that puts it right.
    monitor = host.sh(f"cat /sys/fs/cgroup{scope}/monitor/cgroup.procs").strip()
    host.sh(f"kill -9 {monitor}")
    host.wait_for_none(Path(scope).name)
    assert host.state("one", "Status") == "exited"

    host("rm", "-f", "one", "sliced", "placed", "again")
    host.wait_for_none("wherry-*", "container", identity)


def check_runtime(host: Host) -> None:
    """A container of `wherry oci` is in the scope that its engine names."""
    host("create", "--name", "files", "busybox")
    host.sh(f"mkdir -p /srv/b/rootfs && {shlex.join(ROOT)} export files | tar -x -C /srv/b/rootfs")
    host("oci", "spec", "--bundle", "/srv/b")
    spec = json.loads(host.sh("cat /srv/b/config.json"))
    spec["process"] |= {"terminal": False, "args": ["sleep", "1000"]}
    spec["linux"]["cgroupsPath"] = "a-b.slice:engine:one"
    host.sh(f"echo {shlex.quote(json.dumps(spec))} > /srv/b/config.json")

    create = shlex.join([*ROOT, "oci", "--systemd-cgroup", "create", "--bundle", "/srv/b"])
    # The container has the streams of who creates it.
    host.sh(f"{create} --pid-file /tmp/pid one < /dev/null > /dev/null 2>&1")
    host("oci", "start", "one")
    scope = "/a.slice/a-b.slice/engine-one.scope"

    assert host.group_of_process("$(cat /tmp/pid)") == f"{scope}/container"
    assert host.sh("systemctl is-active engine-one.scope") == "active\n"

    taken = host("oci", "--systemd-cgroup", "create", "--bundle", "/srv/b", "two", check=False)
    assert taken.returncode == 1
    assert f"control group {scope}/container is in use" in taken.stderr

    host("oci", "kill", "one", "KILL")
    host.wait_for_none("engine-one.scope")
    host("oci", "delete", "one")
    host("rm", "files")
    assert host("oci", "list", "--quiet").stdout == ""
