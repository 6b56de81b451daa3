"""What `wherry doctor` says is what `wherry run` then finds, on machines with something amiss."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.cli import Result
from support.requirements import need_tool
from support.settings import as_root, as_rootless, on_linux
from wherry_linux.constants import CLONE_NEWNS, CLONE_NEWUSER
from wherry_linux.idmap import IDENTITY
from wherry_linux.userns import in_child

if TYPE_CHECKING:
    from support.cli import Cli
    from support.hosts import PrivateHost
    from support.world import World
    from wherry.oci.runtime_spec import IDMapping

pytestmark = pytest.mark.usefixtures("busybox_image")

RUN = ("run", "--rm", "--network", "none", "busybox", "echo", "hello")


class Machine:
    """This machine, changed by `setup` in a mount namespace of its own."""

    def __init__(self, wherry: Cli, setup: str, *, fenced: bool = False, ids: int = 0) -> None:
        """`fenced`: in a user namespace in which everybody keeps his id, with limits of its own.

        In one that has only the first `ids`, if that is not 0.
        """
        if os.geteuid() != 0:
            pytest.skip("needs root to change what a user finds")
        self._wherry = wherry
        self._setup = setup
        self._flags = CLONE_NEWNS | (CLONE_NEWUSER if fenced or ids else 0)
        some: list[IDMapping] = [{"containerID": 0, "hostID": 0, "size": ids}]
        self._maps = (some, some) if ids else (IDENTITY, IDENTITY) if fenced else None

    def __call__(self, *argv: str) -> Result:
        code, output, errors = in_child(lambda: self._run(argv), self._flags, self._maps)
        return Result(argv=argv, returncode=code, output=output.encode(), errors=errors.encode())

    def _run(self, argv: tuple[str, ...]) -> tuple[int, str, str]:
        subprocess.run(["sh", "-ec", self._setup], check=True)
        result = self._wherry(*argv, check=False)
        return result.returncode, result.stdout, result.stderr

    def finding(self, subject: str) -> dict[str, str]:
        result = self("doctor", "--format", "json")
        assert result.stdout, result.stderr
        found = json.loads(result.stdout)
        return next(finding for finding in found if finding["Subject"] == subject)

    def runs(self) -> bool:
        """Whether a container runs; what cannot be done is one line with a hint at most."""
        result = self(*RUN)
        if result.returncode == 0:
            assert result.stdout == "hello\n"
            return True
        assert result.returncode in (1, 125, 126)
        assert result.stderr.startswith("wherry: "), result.stderr
        assert "Traceback" not in result.stderr
        return False


@as_rootless
def test_without_newuidmap_a_user_has_one_id(wherry: Cli) -> None:
    machine = Machine(wherry, f"mount --bind /dev/null {need_tool('newuidmap')}")

    finding = machine.finding("subordinate ids")

    assert finding["Verdict"] == "limited"
    assert "newuidmap" in finding["Text"]
    assert finding["Mend"].endswith(" uidmap")
    assert finding["Who"] == "administrator"
    assert machine.runs()


@as_rootless
def test_without_subordinate_ids_the_line_grants_what_nobody_else_has(wherry: Cli) -> None:
    machine = Machine(wherry, "mount --bind /dev/null /etc/subuid")

    finding = machine.finding("subordinate ids")

    assert finding["Verdict"] == "limited"
    assert finding["Text"] == f"/etc/subuid grants {wherry.account.name} 0 ids"
    first = int(finding["Mend"].split()[3].partition("-")[0])
    with open("/etc/subgid") as lines:
        ranges = [line.strip().split(":") for line in lines]
    assert all(int(start) + int(count) <= first for _, start, count in ranges)
    assert machine.runs()


@as_rootless
def test_a_newuidmap_without_its_setuid_bit_stops_everything(wherry: Cli, world: World) -> None:
    program = need_tool("newuidmap")
    copy = f"{world.base}/newuidmap"
    shutil.copyfile(program, copy)
    os.chmod(copy, 0o755)
    machine = Machine(wherry, f"mount --bind {copy} {program}")

    finding = machine.finding("subordinate ids")

    assert finding["Verdict"] == "missing"
    assert finding["Mend"].startswith("sudo chmod u+s ")
    assert machine("doctor").returncode == 1
    assert not machine.runs()


@as_rootless
def test_without_user_namespaces_no_users_container_runs(wherry: Cli) -> None:
    machine = Machine(wherry, "echo 0 >/proc/sys/user/max_user_namespaces", fenced=True)

    finding = machine.finding("user namespaces")

    assert finding["Verdict"] == "missing"
    assert "user.max_user_namespaces" in finding["Mend"]
    assert machine("doctor").returncode == 1
    assert not machine.runs()


@as_root
def test_without_user_namespaces_roots_containers_run_without(wherry: Cli) -> None:
    machine = Machine(wherry, "echo 0 >/proc/sys/user/max_user_namespaces", fenced=True)

    finding = machine.finding("user namespaces")

    assert finding["Verdict"] == "limited"
    assert finding["Meanwhile"] == "containers run without one, as with --userns host"
    assert "user.max_user_namespaces" in finding["Mend"]
    assert machine("doctor").returncode == 0
    assert machine.runs()
    explained = json.loads(machine("run", "--explain=json", *RUN[1:]).stderr)
    users = next(each for each in explained["namespaces"] if each["type"] == "user")
    assert (users["how"], users["container"]) == ("shared", users["host"])
    assert explained["notes"][0].startswith("no user namespace of its own: ")
    refused = machine(*RUN[:-2], "sh", "-c", "mknod /node b 7 0 && cat /node")
    assert "Operation not permitted" in refused.stderr


@as_root
@pytest.mark.parametrize("userns", ["private", "auto"])
def test_who_asks_for_a_user_namespace_gets_one_or_is_told(wherry: Cli, userns: str) -> None:
    machine = Machine(wherry, "echo 0 >/proc/sys/user/max_user_namespaces", fenced=True)

    result = machine("run", "--userns", userns, *RUN[1:])

    assert result.returncode in (125, 126)
    assert result.stderr.startswith("wherry: "), result.stderr
    assert "`wherry doctor`" in result.stderr
    assert machine("ps", "-aq").stdout == ""


@as_root
@pytest.mark.parametrize("userns", ["", "host"])
def test_root_of_a_few_ids_runs_containers(wherry: Cli, userns: str) -> None:
    """As in a container of another tool: not every id is there to be mapped."""
    machine = Machine(wherry, "true", ids=65536)

    finding = machine.finding("user namespaces")
    result = machine("run", "--userns", userns, *RUN[1:-2], "cat", "/proc/self/uid_map")

    assert finding["Verdict"] == "ok"
    assert result.stdout.split() == ["0", "0", "65536"]


@on_linux
def test_a_noexec_disk_concerns_volumes_alone(wherry: Cli, wherry_root: str) -> None:
    machine = Machine(
        wherry,
        f"mount --bind {wherry_root} {wherry_root};"
        f" mount -o remount,bind,noexec {wherry_root} {wherry_root}",
    )
    script = "cp /bin/busybox /data/copy; /data/copy true"

    finding = machine.finding("data directory")

    assert finding["Verdict"] == "limited"
    assert "noexec" in finding["Text"]
    assert machine.runs()
    in_volume = ("run", "--rm", "--network", "none", "-v", "data:/data", "busybox", "sh", "-c")
    assert "Permission denied" in machine(*in_volume, script).stderr


@as_rootless
def test_an_overlay_that_does_not_stack_is_found(wherry: Cli, wherry_root: str) -> None:
    setup = f"""
    mount -t tmpfs none /mnt
    mkdir /mnt/upper /mnt/work
    chown --reference={wherry_root} /mnt/upper
    mount -t overlay -o lowerdir={wherry_root},upperdir=/mnt/upper,workdir=/mnt/work \
        none {wherry_root}
    """
    machine = Machine(wherry, setup)

    verdict = machine.finding("overlayfs")["Verdict"]

    assert (verdict != "missing") == machine.runs()


@as_rootless
def test_without_a_runtime_directory_a_private_one_in_tmp_serves(wherry: Cli) -> None:
    place = f"/tmp/wherry-{wherry.account.uid}"
    del wherry.environment["WHERRY_ROOT"]
    wherry.environment["XDG_RUNTIME_DIR"] = "/root"
    machine = Machine(wherry, "")
    try:
        finding = machine.finding("runtime directory")

        assert finding["Verdict"] == "limited"
        assert finding["Meanwhile"] == f"{place} serves"
        assert os.stat(place).st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(place, ignore_errors=True)


@on_linux
def test_without_control_groups_containers_run(wherry: Cli) -> None:
    machine = Machine(wherry, "umount --recursive --lazy /sys/fs/cgroup")

    finding = machine.finding("control groups")

    assert finding["Verdict"] == "limited"
    assert finding["Who"] == "administrator"
    assert machine.runs()


@as_rootless
def test_without_tun_there_is_no_default_network(wherry: Cli) -> None:
    machine = Machine(wherry, "mount -t tmpfs none /dev/net")

    finding = machine.finding("network")
    result = machine("run", "--rm", "busybox", "true")
    wherry("network", "create", "--internal", "closed")

    assert finding["Verdict"] == "limited"
    assert finding["Meanwhile"] == "--network host, --network none and networks that are --internal"
    assert machine.runs()
    assert machine("run", "--rm", "--network", "closed", "busybox", "true").returncode == 0
    assert result.returncode == 125
    assert result.stderr.startswith("wherry: ")


@as_rootless
def test_low_ports_and_ping_come_with_the_lines_that_allow_them(
    wherry: Cli, host: PrivateHost
) -> None:
    for setting in ("ip_unprivileged_port_start=1024", "ping_group_range=1 0"):
        host.run("sysctl", "-q", "-w", f"net.ipv4.{setting}")
    run = ("run", "--rm", "-p", "80:80", "busybox", "true")

    def found(subject: str) -> dict[str, str]:
        said = json.loads(wherry("doctor", "--format", "json").stdout)
        return next(finding for finding in said if finding["Subject"] == subject)

    for subject in ("published ports", "ping"):
        finding = found(subject)
        assert (finding["Verdict"], finding["Who"]) == ("limited", "administrator")
        setting = finding["Mend"].split("'")[1].replace(" = ", "=")
        refused = wherry(*run, check=False)
        assert (refused.returncode == 125) is (subject == "published ports")
        host.run("sysctl", "-q", "-w", setting)
        assert found(subject)["Verdict"] == "ok"


@as_rootless
def test_apparmors_restriction_comes_with_a_profile_for_this_interpreter(wherry: Cli) -> None:
    # As on Ubuntu from 24.04 on; a limit of none keeps this kernel from making any.
    restricted = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
    machine = Machine(
        wherry,
        "echo 0 > /proc/sys/user/max_user_namespaces;"
        f" mount -t tmpfs none /proc/sys/kernel && echo 1 > {restricted}",
        fenced=True,
    )

    finding = machine.finding("user namespaces")

    assert finding["Verdict"] == "missing"
    assert "AppArmor" in finding["Text"]
    assert "/python" in finding["Mend"]
    assert "userns," in finding["Mend"]
    assert not machine.runs()


@as_rootless
def test_a_user_who_is_in_groups_is_told_how_to_keep_them(wherry: Cli) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to put the user into a group")
    account = wherry.account
    argv = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--groups=44"]
    result = subprocess.run(
        [*argv, *account.command, "doctor", "--format", "json"],
        env=wherry.environment, cwd=wherry.directory, capture_output=True, check=False,
    )  # fmt: skip

    finding = next(f for f in json.loads(result.stdout) if f["Subject"] == "groups")

    assert "keep-groups" in finding["Mend"]
    assert finding["Who"] == "you"


@as_root
def test_a_place_that_is_read_only_is_told(wherry: Cli, world: World) -> None:
    machine = Machine(wherry, f"mount --bind -o ro {world.root} {world.root}")

    finding = machine.finding("data directory")

    assert finding["Verdict"] == "missing"
    assert "cannot write" in finding["Text"]
    assert not machine.runs()
