"""A machine from its start to its end, and what it survives on the way."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.busybox import busybox_archive
from support.cli import Cli
from support.machines import BOOT, inspect, start, supervisor
from support.ports import listeners
from support.settings import OFFLINE
from support.terminal import Terminal
from support.waiting import Deadline, wait_gone, wait_until
from wherry_vm.protocol import COMMAND_PORTS
from wherry_vm.qemu.command import MOST_PORTS

if TYPE_CHECKING:
    from support.world import World

pytestmark = [pytest.mark.vm, pytest.mark.network]

KILL_RUNNER = "kill -9 $(sed -n 's/^PPid:.//p' /proc/$PPID/status)"
"""Kills the parent of who serves the command."""


def test_the_first_command_starts_it_and_says_so_once(own_machine: Cli) -> None:
    first = own_machine("ps", "--format", "{{.Names}}", timeout=BOOT)
    second = own_machine("ps", "--format", "{{.Names}}")

    assert (first.lines, second.lines) == ([], [])
    assert first.stderr.startswith("wherry: Starting machine default\n")
    assert second.stderr == ""
    assert inspect(own_machine)["State"] == "running"
    shown = own_machine("machine", "ls", "--format", "{{.CPUs}}").lines
    assert shown == own_machine("machine", "ssh", "default", "nproc").lines


def test_stop_ends_qemu_and_what_is_kept_is_there_again(own_machine: Cli) -> None:
    own_machine("volume", "create", "kept", timeout=BOOT)
    pid = int(str(inspect(own_machine)["Pid"]))
    own_machine("machine", "stop")

    assert not os.path.exists(f"/proc/{pid}")
    assert own_machine("machine", "ls", "--format", "{{.Name}} {{.State}}").lines == [
        "default stopped"
    ]
    own_machine("machine", "stop")
    assert own_machine("volume", "ls", "--quiet", timeout=BOOT).lines == ["kept"]


def test_containers_are_there_after_a_power_failure(own_machine: Cli) -> None:
    own_machine("load", input=busybox_archive(), timeout=BOOT)
    run = ("run", "-d", OFFLINE)
    box = own_machine(*run, "--name", "box", "busybox", "sleep", "1000").stdout
    own_machine(*run, "--rm", "--name", "gone", "busybox", "sleep", "1000")

    # Else the last seconds are lost, as on any computer.
    own_machine("machine", "ssh", "default", "sync")
    own_machine("machine", "stop", "--force")

    assert own_machine("ps", "-aq", "--no-trunc", timeout=BOOT).stdout == box
    state = own_machine("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "box")
    assert state.stdout == "exited 137\n"
    own_machine("start", "box")
    assert own_machine("exec", "box", "echo", "again").stdout == "again\n"


def test_a_machine_starts_wherever_its_files_are(own_machine: Cli) -> None:
    own_machine.environment["WHERRY_ROOT"] += "/a b\nq:u,o\\te\"'" + os.fsdecode(b"\xff\xfe")

    assert own_machine("ps", "--quiet", timeout=BOOT).lines == []


def test_two_starts_at_once_start_one(own_machine: Cli) -> None:
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda _: start(own_machine), range(3)))

    assert [result.returncode for result in results] == [0, 0, 0]
    assert inspect(own_machine)["State"] == "running"


def test_a_machine_that_runs_is_not_made_again(own_machine: Cli) -> None:
    start(own_machine)

    result = own_machine("machine", "init", check=False, timeout=60)

    assert (result.returncode, result.stderr) == (1, "wherry: machine default is there already\n")


def test_a_start_that_is_interrupted_goes_on(own_machine: Cli) -> None:
    process = own_machine.start("machine", "start")
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate()

    assert process.returncode == 130
    start(own_machine)
    assert inspect(own_machine)["State"] == "running"


def test_without_its_supervisor_the_machine_ends_and_the_next_command_starts_it(
    own_machine: Cli,
) -> None:
    start(own_machine)
    qemu = int(str(inspect(own_machine)["Pid"]))
    with Terminal(own_machine, "machine", "ssh", "default", "sh", "-c", "echo up; cat") as terminal:
        terminal.expect("up")
        assert terminal.attributes() != terminal.attributes_before
        os.kill(supervisor(own_machine), signal.SIGKILL)

        assert terminal.wait(60) == 1
        terminal.expect("the connection to the machine broke off")
        assert terminal.attributes() == terminal.attributes_before
    wait_gone([qemu], 30)
    assert own_machine("ps", "--quiet", timeout=BOOT).lines == []


def test_what_containers_wrote_outlives_a_supervisor_that_is_killed(own_machine: Cli) -> None:
    own_machine("load", input=busybox_archive(), timeout=BOOT)
    # Not even a shell that does not want to end keeps the machine from ending in order.
    script = "echo kept >/v/file; trap '' TERM; echo there; sleep 1000"
    box = own_machine("run", "-d", OFFLINE, "-v", "data:/v", "busybox", "sh", "-c", script).stdout
    wait_until(
        lambda: own_machine("logs", box.strip()).stdout == "there\n", Deadline(60, "the file")
    )
    os.kill(supervisor(own_machine), signal.SIGKILL)

    found = own_machine("ps", "-aq", "--no-trunc", timeout=BOOT)
    assert (found.stdout, "damaged" in found.stderr) == (box, False)
    read = own_machine("run", "--rm", OFFLINE, "-v", "data:/v", "busybox", "cat", "/v/file")
    assert read.stdout == "kept\n"


def test_without_qemu_a_command_says_so_and_the_next_one_starts_it(own_machine: Cli) -> None:
    start(own_machine)
    process = own_machine.start("machine", "ssh", "default", "sh", "-c", "echo there; sleep 100")
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"
    os.kill(int(str(inspect(own_machine)["Pid"])), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert b"the connection to the machine broke off" in errors
    assert own_machine("ps", "--quiet", timeout=BOOT).lines == []


def test_commands_find_a_way_where_what_serves_them_is_killed(own_machine: Cli) -> None:
    """Each kill costs a port, and in the end SSH is the way, which may break off, too."""
    start(own_machine)
    kills = ["kill -9 $PPID"] * (COMMAND_PORTS + 1) + ["kill -9 $(pidof sshd-session)"]
    broken = [
        own_machine("machine", "ssh", "default", "sh", "-c", kill, check=False) for kill in kills
    ]

    assert [each.returncode for each in broken] == [1] * len(kills)
    assert {each.stderr.splitlines()[0] for each in broken} == {
        "wherry: the connection to the machine broke off"
    }
    assert own_machine("ps", "--quiet").lines == []
    told = own_machine("machine", "logs").stdout
    assert told.count("the SSH connection to the guest broke off: ") == 1


def test_commands_go_on_where_the_runner_was_killed(own_machine: Cli) -> None:
    start(own_machine)
    own_machine("machine", "ssh", "default", "sh", "-c", KILL_RUNNER, check=False)

    # The next one has to import everything first.
    wait_until(
        lambda: own_machine("ps", "--quiet", check=False, timeout=BOOT).returncode == 0,
        Deadline(120, "another runner"),
    )
    assert own_machine("machine", "ssh", "default", "echo", "there").lines == ["there"]


def test_kvm_that_hangs_every_guest_is_found_out_and_remembered(own_machine: Cli) -> None:
    """What can be seen without a boot is not looked at: the boot itself is the probe."""
    if not os.path.exists("/sys/module/kvm_pvm"):
        pytest.skip("this host's KVM is none that hangs its guests")
    first = start(own_machine, env={"WHERRY_TRUST_KVM": "1"})
    own_machine("machine", "stop")
    second = start(own_machine, env={"WHERRY_TRUST_KVM": "1"})

    for result in (first, second):
        assert "emulating the processor, which is slow (kvm: QEMU" in result.stderr
    assert inspect(own_machine)["Accelerator"] == "tcg"


def test_a_machine_without_work_stops_by_itself(own_machine: Cli) -> None:
    own_machine("machine", "init", "--idle", "1s")
    start(own_machine)

    wait_until(
        lambda: own_machine("machine", "inspect", "-f", "{{.State}}").lines == ["stopped"],
        Deadline(60, "the machine to stop"),
    )


def test_the_clock_is_right_again_after_the_host_has_slept(own_machine: Cli) -> None:
    start(own_machine)
    qemu = int(str(inspect(own_machine)["Pid"]))
    os.kill(qemu, signal.SIGSTOP)
    time.sleep(4)
    os.kill(qemu, signal.SIGCONT)

    def is_right() -> bool:
        before = time.time()
        said = int(own_machine("machine", "ssh", "default", "date", "+%s").stdout)
        return before - 2 < said < time.time() + 1

    wait_until(is_right, Deadline(60, "the guest's clock"))


def test_space_that_is_freed_inside_is_freed_on_the_host(own_machine: Cli) -> None:
    start(own_machine)

    def used() -> int:
        return int(own_machine("machine", "inspect", "-f", "{{.Disk.Used}}").stdout)

    shell = ("machine", "ssh", "default", "sh", "-c")
    before = used()
    own_machine(*shell, "dd if=/dev/urandom of=/data/big bs=1M count=64 && sync", timeout=120)
    assert used() > before + (60 << 20)
    own_machine(*shell, "rm /data/big && sync")

    wait_until(lambda: used() < before + (16 << 20), Deadline(60, "the space"))


def test_a_disk_grows_and_does_not_shrink(own_machine: Cli) -> None:
    own_machine("machine", "init", "--disk", "2g")
    start(own_machine)
    own_machine("machine", "stop")
    own_machine("machine", "set", "--disk", "5g")
    start(own_machine)

    said = own_machine("machine", "ssh", "default", "df", "-k", "/data").lines[-1].split()[1]
    refused = own_machine("machine", "set", "--disk", "1g", check=False)

    assert int(said) > 4_000_000
    assert refused.returncode == 1
    assert refused.stderr == (
        "wherry: the disk of machine default has 5 GiB: it can grow, not shrink\n"
    )


def test_a_guest_that_never_speaks_is_an_error_with_its_last_words(
    own_world: World, tmp_path: object
) -> None:
    """A kernel that is none: QEMU starts and nothing comes."""
    import hashlib
    import shutil
    from pathlib import Path

    broken = Path(own_world.directory, "image")
    shutil.copytree(own_world.wherry.environment["WHERRY_GUEST"], broken)
    manifest = json.loads((broken / "manifest.json").read_text())
    (broken / "initramfs").write_bytes(b"")
    manifest["files"]["initramfs"]["sha256"] = hashlib.sha256(b"").hexdigest()
    manifest["command_line"]["always"].append("panic=1")
    (broken / "manifest.json").write_text(json.dumps(manifest))

    result = own_world.wherry("ps", env={"WHERRY_GUEST": str(broken)}, check=False, timeout=BOOT)

    assert result.returncode == 1
    assert "wherry: QEMU ended" in result.stderr or "did not become ready" in result.stderr
    assert own_world.wherry("machine", "inspect", "-f", "{{.State}}").lines == ["stopped"]


def test_a_damaged_image_is_refused_and_not_kept(own_world: World) -> None:
    import shutil
    from pathlib import Path

    broken = Path(own_world.directory, "image")
    shutil.copytree(own_world.wherry.environment["WHERRY_GUEST"], broken)
    with open(broken / "root.erofs", "r+b") as file:
        file.seek(5000)
        file.write(b"damage")

    result = own_world.wherry("ps", env={"WHERRY_GUEST": str(broken)}, check=False)

    assert result.returncode == 1
    assert "the guest image is damaged: root.erofs" in result.stderr
    assert not list(Path(own_world.root, "data", "machines", ".images").glob("?" * 64))


def test_without_qemu_the_line_that_installs_it_is_said(own_machine: Cli) -> None:
    result = own_machine("ps", env={"PATH": "/nowhere"}, check=False)

    assert result.returncode == 1
    assert "wherry: QEMU is not installed" in result.stderr
    assert "apt-get install qemu-system" in result.stderr
    assert "Unpacking" not in result.stderr


def test_what_does_not_lead_into_a_machine_is_refused_before_one_starts(
    own_machine: Cli,
) -> None:
    result = own_machine("run", "--sdnotify", "container", "busybox", "true", check=False)

    assert (result.returncode, result.stdout) == (125, "")
    assert result.stderr == "wherry: --sdnotify does not lead into a machine\n"


def test_what_is_no_machine_is_not_asked_about(own_machine: Cli) -> None:
    result = own_machine("machine", "rm", "nosuch", check=False)

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("wherry: no such machine: nosuch\n")


def test_a_command_that_stands_where_a_machine_does_is_told_its_place(own_machine: Cli) -> None:
    result = own_machine("machine", "ssh", "uname", "-a", check=False)

    assert result.returncode == 1
    assert "wherry machine ssh default uname" in result.stderr


def test_nothing_to_set_is_an_error(own_machine: Cli) -> None:
    own_machine("machine", "init")
    result = own_machine("machine", "set", check=False)

    assert (result.returncode, result.stderr) == (
        1,
        "wherry: nothing to set: name at least one option\n",
    )


def test_another_release_starts_its_own_guest_when_nothing_runs_in_the_old_one(
    own_machine: Cli,
) -> None:
    start(own_machine)
    old = supervisor(own_machine)

    newer = of_release(own_machine, "99")
    own_machine("load", input=busybox_archive())
    own_machine("run", "-d", "--name", "busy", "busybox", "sleep", "1000", timeout=BOOT)
    first, second = (newer("ps", "--quiet") for _ in range(2))
    kept = supervisor(own_machine)
    own_machine("rm", "--force", "busy")

    def is_replaced() -> bool:
        newer("ps", "--quiet", timeout=BOOT)
        return supervisor(own_machine) != old

    wait_until(is_replaced, Deadline(BOOT, "another supervisor"))
    assert "machine default is of wherry" in first.stderr
    assert "and this is 99: it is replaced when nothing runs in it any more" in first.stderr
    assert (second.stderr, kept) == ("", old)


def of_release(wherry: Cli, version: str) -> Cli:
    """The command of another release."""
    script = (
        f"import wherry; wherry.__version__ = {version!r}\nfrom wherry.__main__ import main\nmain()"
    )
    account = replace(wherry.account, command=(sys.executable, "-c", script))
    return Cli(account, wherry.environment, wherry.directory)


def test_keys_are_the_users_alone(own_world: World) -> None:
    start(own_world.wherry)

    directory = f"{own_world.root}/data/machines/default"
    for name in ("key", "host_key"):
        assert os.stat(f"{directory}/{name}").st_mode & 0o777 == 0o600


def test_nothing_listens_beyond_loopback(own_machine: Cli) -> None:
    start(own_machine)

    addresses = {
        place.partition(":")[0] for place in listeners(int(str(inspect(own_machine)["Pid"])))
    }

    assert addresses <= {"0100007F"}


def test_shares_are_as_they_were_after_a_restart(own_world: World) -> None:
    wherry = own_world.wherry
    # More of them than a virtio-serial device has ports; the last ones are on another.
    first = [Path(own_world.directory, f"{number:02}") for number in range(MOST_PORTS)]
    given, kept = (Path(own_world.directory, name) for name in ("given", "kept"))
    for each in (*first, given, kept):
        each.mkdir()
    shares = [word for each in (*first, f"{given}:ro", kept) for word in ("--share", str(each))]
    wherry("machine", "init", *shares)
    start(wherry)
    wherry("load", input=busybox_archive(), timeout=BOOT)
    run = ("run", "--rm", "-v", f"{given}:/given", "-v", f"{kept}:/kept", "busybox", "sh", "-c")
    wherry(*run, "touch /kept/file && chown 70:71 /kept/file && chmod 600 /kept/file", timeout=BOOT)

    wherry("machine", "restart", timeout=BOOT)
    (given / "new").write_text("new\n")
    result = wherry(
        *run, "stat -c '%u:%g %a' /kept/file; cat /given/new; touch /given/made", check=False,
        timeout=BOOT,
    )  # fmt: skip

    assert result.lines == ["70:71 600", "new"]
    assert result.stderr == "touch: /given/made: Read-only file system\n"
    assert os.listdir(given) == ["new"]


# A first group with processors of its own has the kernel change its code, and the last one gone
# has it changed back. What makes pages meanwhile runs through there.
CHANGE = """
cd /sys/fs/cgroup
while [ ! -e /run/changed ]; do cat /bin/busybox >/tmp/busy; rm /tmp/busy; done &
for each in $(seq 400); do mkdir changing && rmdir changing; done
touch /run/changed
wait
echo changed
"""


def test_a_kernel_that_changes_its_own_code_runs_on(own_machine: Cli) -> None:
    start(own_machine)

    assert own_machine("machine", "ssh", "default", "sh", "-c", CHANGE).lines == ["changed"]


def test_the_guest_keeps_little_memory_from_containers(own_machine: Cli) -> None:
    start(own_machine)

    lines = own_machine("machine", "ssh", "default", "cat", "/proc/meminfo").lines
    kilobytes = {name: int(size) for name, size, *_ in map(str.split, lines)}

    assert kilobytes["MemTotal:"] - kilobytes["MemAvailable:"] < 120 << 10
