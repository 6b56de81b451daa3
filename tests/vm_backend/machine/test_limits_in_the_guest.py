"""Limits where control groups of version 2 have their controllers: in the machine's guest."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

import pytest

from support.busybox import busybox_archive
from support.settings import OFFLINE
from support.terminal import Terminal
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.cli import Cli, Result

pytestmark = [pytest.mark.vm, pytest.mark.network]

RUN = ("run", "--rm", OFFLINE)
HOG = "tail /dev/zero"
SPIN = "while :; do :; done"
_SECONDS = 60


def guest(machine: Cli, script: str) -> str:
    """What a shell in the guest says."""
    return machine("machine", "ssh", "default", "sh", "-c", script).stdout


def files(machine: Cli, *options: str, names: str) -> list[str]:
    """The lines of files of a container's control group."""
    script = f"cd /sys/fs/cgroup; for name in {names}; do cat $name; done"
    return machine(*RUN, *options, "busybox", "sh", "-c", script).lines


@pytest.mark.parametrize(
    ("options", "names", "lines"),
    [
        ("-m 64m", "memory.max memory.swap.max", ["67108864", "67108864"]),
        ("-m 64m --memory-swap 64m", "memory.max memory.swap.max", ["67108864", "0"]),
        ("-m 64m --memory-swap -1", "memory.swap.max", ["max"]),
        ("-m 64m --memory-reservation 32m", "memory.low", ["33554432"]),
        ("--cpus 0.5", "cpu.max", ["50000 100000"]),
        ("--cpu-period 50000 --cpu-quota 10000", "cpu.max", ["10000 50000"]),
        ("--cpu-shares 512", "cpu.weight", ["59"]),
        ("--cpuset-cpus 0 --cpuset-mems 0", "cpuset.cpus cpuset.mems", ["0", "0"]),
        ("--pids-limit 33", "pids.max", ["33"]),
        ("--pids-limit -1", "pids.max", ["max"]),
        ("--cgroup-conf memory.high=48M", "memory.high", ["50331648"]),
        ("--cgroup-conf hugetlb.2MB.max=4194304", "hugetlb.2MB.max", ["4194304"]),
        ("", "memory.max pids.max cpu.max", ["max", "max", "max 100000"]),
    ],
)
def test_limit_is_in_the_control_group(
    machine: Cli, options: str, names: str, lines: list[str]
) -> None:
    assert files(machine, *options.split(), names=names) == lines


def test_traffic_of_a_device_is_limited(machine: Cli) -> None:
    numbers = guest(machine, "cat /sys/block/vda/dev").strip()

    told = files(
        machine, "--device-read-bps", "/dev/vda:1mb", "--device-write-bps", "/dev/vda:2mb",
        "--device-read-iops", "/dev/vda:300", "--device-write-iops", "/dev/vda:400",
        names="io.max",
    )  # fmt: skip

    assert told == [f"{numbers} rbps=1048576 wbps=2097152 riops=300 wiops=400"]


def test_reading_takes_as_long_as_its_limit_says(machine: Cli) -> None:
    script = "time dd if=/dev/vda of=/dev/null bs=1M count=4 iflag=direct"

    result = machine(
        *RUN, "--device", "/dev/vda:r", "--device-read-bps", "/dev/vda:2mb",
        "busybox", "sh", "-c", script,
    )  # fmt: skip

    took = re.search(r"real\s+(\d+)m\s*([\d.]+)s", result.stderr)
    assert took, result.stderr
    assert 60 * int(took[1]) + float(took[2]) >= 1


def test_weight_of_traffic_is_set_or_told_of(machine: Cli) -> None:
    script = "cat /sys/fs/cgroup/io.weight 2>/dev/null || echo none"

    result = machine(*RUN, "--blkio-weight", "300", "busybox", "sh", "-c", script)

    if result.stdout == "none\n":
        assert "weights are discarded: this kernel was built without io.weight" in result.stderr
    else:
        assert result.lines == ["default 2930"]
        assert result.stderr == ""


def test_weight_of_traffic_of_a_device_is_set_or_told_of(machine: Cli) -> None:
    numbers = guest(machine, "cat /sys/block/vda/dev").strip()
    words = (*RUN, "--blkio-weight-device", "/dev/vda:300", "busybox", "cat")

    result = machine(*words, "/sys/fs/cgroup/io.weight", check=False)

    if result.returncode == 0:
        assert result.lines == ["default 100", f"{numbers} 2930"]
    else:
        assert result.returncode == 125
        assert result.stderr.startswith(
            f"wherry: cannot weigh the traffic of device {numbers}: io.cost is off for it\n"
        )


def test_settings_of_a_process_hold(machine: Cli) -> None:
    script = "cat /proc/self/oom_score_adj; ulimit -n; df -k /dev/shm | tail -n 1"

    lines = machine(
        *RUN, "--oom-score-adj", "123", "--ulimit", "nofile=77:99", "--shm-size", "7m",
        "busybox", "sh", "-c", script,
    ).lines  # fmt: skip

    assert lines[:2] == ["123", "77"]
    assert lines[2].split()[1] == "7168"


# ---- memory ----


def test_what_the_machine_needs_is_killed_after_what_runs_in_it(machine: Cli) -> None:
    read = "cat /proc/self/oom_score_adj"
    needed = "$PPID $(pidof sshfs | cut -d' ' -f1)"
    of_needed = f"for pid in {needed}; do cat /proc/$pid/oom_score_adj; done"

    assert machine(*RUN, "busybox", "sh", "-c", read).lines == ["0"]
    inside = machine("machine", "ssh", "default", "sh", "-c", f"{read}; {of_needed}")
    assert inside.lines == ["0", "-900", "-900"]


def test_program_that_takes_too_much_memory_is_killed(machine: Cli) -> None:
    since = guest(machine, "date +%s").strip()

    result = machine(
        "run", "--name", "hog", OFFLINE, "-m", "16m", "--memory-swap", "16m",
        "busybox", *HOG.split(), check=False, timeout=_SECONDS,
    )  # fmt: skip

    assert result.returncode == 137
    state = "{{.State.OOMKilled}} {{.State.ExitCode}} {{.State.Status}}"
    assert machine("inspect", "-f", state, "hog").stdout == "true 137 exited\n"
    assert machine("ps", "-a", "--format", "{{.Status}}").stdout.startswith("Exited (137)")
    told = machine(
        "events", "--since", since, "--until", "0s", "--filter", "container=hog",
        "--format", "{{.Action}}",
    ).lines  # fmt: skip
    assert told[-2:] == ["oom", "die"]


def test_killing_is_told_of_while_the_container_goes_on(machine: Cli) -> None:
    machine(
        "run", "-d", "--name", "survivor", OFFLINE, "-m", "16m", "--memory-swap", "16m",
        "busybox", "sh", "-c", f"{HOG}; sleep 1000",
    )  # fmt: skip

    def is_told() -> bool:
        state = "{{.State.OOMKilled}} {{.State.Running}}"
        return machine("inspect", "-f", state, "survivor").stdout == "true true\n"

    wait_until(is_told, Deadline(_SECONDS, "the kill to be told of"))


def test_oom_kill_disable_does_nothing_and_says_so(machine: Cli) -> None:
    result = machine(*RUN, "-m", "16m", "--oom-kill-disable", "busybox", "true")

    assert "--oom-kill-disable does nothing" in result.stderr


# ---- processes and CPUs ----


def test_fork_bomb_is_stopped(machine: Cli) -> None:
    script = "i=0; while [ $i -lt 40 ]; do sleep 100 & i=$((i + 1)); done; echo all"

    result = machine(
        *RUN, "--pids-limit", "20", "busybox", "sh", "-c", script, check=False, timeout=_SECONDS
    )

    assert "all" not in result.stdout
    assert "can't fork" in result.stderr


def test_share_of_a_cpu_is_kept_to_and_shown(machine: Cli) -> None:
    machine("run", "-d", "--name", "busy", OFFLINE, "--cpus", "0.2", "busybox", "sh", "-c", SPIN)

    shown = machine(
        "stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}} {{.PIDs}}", "busy"
    ).stdout.split()
    throttled = machine("exec", "busy", "grep", "nr_throttled", "/sys/fs/cgroup/cpu.stat").stdout

    assert (shown[0], shown[2]) == ("busy", "1")
    assert 8 < float(shown[1].removesuffix("%")) < 32
    assert int(throttled.split()[1]) > 0


# ---- update ----


def test_limits_of_a_running_container_are_changed(machine: Cli) -> None:
    machine(
        "run", "-d", "--name", "one", OFFLINE, "-m", "64m", "--cpu-period", "50000",
        "busybox", "sleep", "1000",
    )  # fmt: skip

    def limits() -> list[str]:
        names = ("memory.max", "memory.swap.max", "cpu.max", "pids.max", "cpu.weight")
        return machine("exec", "one", "sh", "-c", "cd /sys/fs/cgroup; cat " + " ".join(names)).lines

    assert limits() == ["67108864", "67108864", "max 50000", "max", "100"]
    machine("update", "-m", "96m", "--cpu-quota", "20000", "--pids-limit", "44", "one")
    assert limits() == ["100663296", "33554432", "20000 50000", "44", "100"]
    machine("update", "--memory-swap", "-1", "--cpu-shares", "512", "--pids-limit", "0", "one")
    assert limits() == ["100663296", "max", "20000 50000", "max", "59"]

    document = json.loads(machine("inspect", "one").stdout)[0]["HostConfig"]
    assert (document["Memory"], document["MemorySwap"], document["CpuQuota"]) == (
        96 << 20,
        -1,
        20000,
    )


def test_policy_is_changed_with_the_limits_and_both_stay(machine: Cli) -> None:
    machine("run", "-d", "--name", "two", OFFLINE, "busybox", "sleep", "1000")

    machine("update", "--restart", "on-failure:3", "-m", "32m", "two")
    machine("restart", "-t", "0", "two")

    policy = "{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}"
    assert machine("inspect", "-f", policy, "two").stdout == "on-failure:3\n"
    assert machine("exec", "two", "cat", "/sys/fs/cgroup/memory.max").stdout == "33554432\n"


def test_limit_that_contradicts_is_refused_and_nothing_changes(machine: Cli) -> None:
    machine("run", "-d", "--name", "three", OFFLINE, "-m", "32m", "busybox", "sleep", "1000")

    result = machine("update", "-m", "128m", "three", check=False)

    assert result.returncode == 1
    assert "update the memoryswap at the same time" in result.stderr
    assert machine("exec", "three", "cat", "/sys/fs/cgroup/memory.max").stdout == "33554432\n"


# ---- what is shown ----


def test_stats_have_dockers_columns_and_count_without_limits(machine: Cli) -> None:
    machine("run", "-d", "--name", "plain", OFFLINE, "busybox", "sleep", "1000")
    machine("run", "-d", "--name", "small", OFFLINE, "-m", "32m", "busybox", "sleep", "1000")
    machine("create", "--name", "idle", OFFLINE, "busybox", "true")

    head, *rows = machine("stats", "--no-stream", "--all").lines
    assert re.split(r"\s{2,}", head) == [
        "CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O",
        "PIDS",
    ]  # fmt: skip
    fields = {row.split()[1]: re.split(r"\s{2,}", row) for row in rows}

    assert re.fullmatch(r"[\d.]+(KiB|MiB) / 32MiB", fields["small"][3])
    assert re.fullmatch(r"[1-9][\d.]*(KiB|MiB) / [\d.]+GiB", fields["plain"][3])
    assert fields["plain"][7] == "1"
    assert fields["idle"][2:5] == ["--", "-- / --", "--"]


def test_live_table_is_drawn_over_the_one_before(machine: Cli) -> None:
    machine("run", "-d", "--name", "shown", OFFLINE, "busybox", "sleep", "1000")
    terminal = Terminal(machine, "stats", rows=20, columns=120)
    try:
        terminal.expect("shown")
        terminal.expect("\x1b[H")
        terminal.expect("shown")
        terminal.send("\x03")
        terminal.wait()
    finally:
        terminal.close()


def test_pause_freezes_the_group_and_top_sees_its_processes(machine: Cli) -> None:
    machine("run", "-d", "--name", "frozen", OFFLINE, "busybox", "sleep", "1234")
    machine("pause", "frozen")
    identity = machine("inspect", "-f", "{{.Id}}", "frozen").stdout.strip()

    frozen = guest(machine, f"cat /sys/fs/cgroup/wherry/{identity}/cgroup.events")
    told = machine("top", "frozen", "-o", "pid,args", check=False)
    machine("unpause", "frozen")

    assert "frozen 1" in frozen
    assert "sleep 1234" in told.stdout
    assert machine("inspect", "-f", "{{.State.Status}}", "frozen").stdout == "running\n"


def test_info_tells_what_can_be_limited(machine: Cli) -> None:
    document = json.loads(machine("info", "--format", "json").stdout)

    assert (document["CgroupVersion"], document["CgroupDriver"]) == ("2", "cgroupfs")
    for key in ("MemoryLimit", "SwapLimit", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit"):
        assert document[key] is True, key
    assert not [text for text in document["Warnings"] or () if "io.weight" not in text]


# ---- places ----


def test_group_is_where_it_was_asked_for(machine: Cli) -> None:
    machine(
        "run", "-d", "--name", "placed", OFFLINE, "--cgroup-parent", "/some/../group",
        "busybox", "sleep", "1000",
    )  # fmt: skip
    pid = machine("inspect", "-f", "{{.State.Pid}}", "placed").stdout.strip()

    assert guest(machine, f"cat /proc/{pid}/cgroup").startswith("0::/group/")
    machine("rm", "-f", "placed")
    assert guest(machine, "ls -d /sys/fs/cgroup/group/*/ 2>/dev/null || :") == ""


@pytest.mark.parametrize(("mode", "seen"), [("private", "0::/\n"), ("host", "0::/wherry/")])
def test_group_is_seen_by_its_namespace(machine: Cli, mode: str, seen: str) -> None:
    result = machine(*RUN, "--cgroupns", mode, "busybox", "cat", "/proc/self/cgroup")

    assert result.stdout.startswith(seen)


def test_command_joins_a_container_that_divides_its_group(machine: Cli) -> None:
    """As systemd does in a container of its own."""
    script = (
        "cd /sys/fs/cgroup; mkdir init; echo 1 >init/cgroup.procs;"
        " echo +memory >cgroup.subtree_control; echo divided; exec sleep 1000"
    )
    machine(
        "run", "-d", "--name", "divided", OFFLINE, "--privileged", "busybox", "sh", "-c", script
    )
    wait_until(
        lambda: machine("logs", "divided").stdout == "divided\n", Deadline(_SECONDS, "the groups")
    )

    assert machine("exec", "divided", "cat", "/proc/self/cgroup").stdout == "0::/init\n"
    machine("rm", "-f", "divided")
    assert guest(machine, "ls -d /sys/fs/cgroup/wherry/*/ 2>/dev/null || :") == ""


# ---- refusals ----


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--cpus 99", "range of CPUs is from 0.01 to "),
        ("--cpuset-cpus 0-64", "Requested CPUs are not available - requested 0-64, available: 0"),
        ("--cpuset-mems 7", "Requested memory nodes are not available - requested 7, available: 0"),
        ("--device-read-bps /dev/null:1mb", "cannot limit /dev/null: it is not a block device"),
        ("--device-read-bps /dev/nowhere:1mb", "no such device: /dev/nowhere"),
        ("--cgroup-conf memory.nothing=1", "memory.nothing"),
    ],
)
def test_limit_that_cannot_be_is_refused_and_nothing_is_left(
    machine: Cli, options: str, told: str
) -> None:
    result = machine("run", OFFLINE, *options.split(), "--name", "no", "busybox", "true",
                     check=False)  # fmt: skip

    assert result.returncode == 125
    first = result.stderr.splitlines()[0]
    assert first.startswith("wherry: ")
    assert told in first
    assert guest(machine, "ls -d /sys/fs/cgroup/wherry/*/ 2>/dev/null || :") == ""


# ---- devices ----


@pytest.mark.parametrize(
    ("options", "script", "code"),
    [
        ("--device=/dev/vdb:/dev/disk:r", ": < /dev/disk", 0),
        ("--device=/dev/vdb:/dev/disk:r", ": >> /dev/disk", 1),
        ("--device=/dev/vdb", ": >> /dev/vdb", 0),
        ("--userns=host", "mknod /disk b {numbers} && : < /disk", 1),
        ("--device-cgroup-rule=b {major}:* r", "mknod /disk b {numbers} && : < /disk", 0),
        ("--device-cgroup-rule=b {major}:* r", "mknod /disk b {numbers} && : >> /disk", 1),
        ("--device-cgroup-rule=c *:* rwm", "mknod /disk b {numbers} && : < /disk", 1),
        ("--privileged", ": >> /dev/vdb", 0),
    ],
)
def test_device_is_used_as_it_was_given(machine: Cli, options: str, script: str, code: int) -> None:
    major, minor = guest(machine, "cat /sys/block/vdb/dev").strip().split(":")
    words = [word.format(major=major) for word in options.split(" --")]

    result = machine(
        *RUN, words[0], *(f"--{word}" for word in words[1:]), "busybox", "sh", "-c",
        script.format(numbers=f"{major} {minor}"), check=False,
    )  # fmt: skip

    assert result.returncode == code, result.stderr


@pytest.mark.parametrize(
    ("options", "name", "code"),
    [((), "vdb", 1), ((), "zero", 0), (("--device=/dev/vdb",), "vdb", 0)],
)
def test_node_in_a_bound_directory_is_used_if_it_was_given(
    machine: Cli, options: tuple[str, ...], name: str, code: int
) -> None:
    # What is bound is the guest's: there the command has to be typed.
    result = machine(
        "machine", "ssh", "default", "wherry", *RUN, *options, "-v", "/dev:/host",
        "busybox", "sh", "-c", f": < /host/{name}", check=False,
    )  # fmt: skip

    assert result.returncode == code, result.stderr


# ---- without root ----

ROOTLESS = """
set -e
mkdir -p /home/u /var/tmp/u
echo u:x:1000:1000::/home/u:/bin/sh >>/etc/passwd
echo u:x:1000: >>/etc/group
chown u:u /home/u /var/tmp/u
echo u:100000:65536 >/etc/subuid
cp /etc/subuid /etc/subgid
mkdir -p /run/user/1000 /sys/fs/cgroup/u/session
chown -R u:u /run/user/1000
cd /sys/fs/cgroup/u
for directory in . session; do
    chown u $directory $directory/cgroup.procs $directory/cgroup.subtree_control
done
"""


@pytest.fixture
def rootless(machine: Cli) -> Callable[..., Result]:
    """`rootless("run", …)`: as a user in the guest, in a session of a delegated group."""

    def call(*argv: str, input: bytes | None = None, check: bool = True) -> Result:  # noqa: A002
        line = shlex.join(["wherry", *argv])
        return machine(
            "machine", "ssh", "default", "sh", "-c",
            "echo $$ >/sys/fs/cgroup/u/session/cgroup.procs;"
            " WHERRY_ROOT=/var/tmp/u XDG_RUNTIME_DIR=/run/user/1000"
            f" exec su u -c {shlex.quote(line)}",
            input=input, check=check, timeout=_SECONDS,
        )  # fmt: skip

    if not guest(machine, "id u 2>/dev/null || :"):
        guest(machine, ROOTLESS)
        call("load", input=busybox_archive())
    return call


def test_limits_hold_without_root_where_a_group_is_delegated(
    rootless: Callable[..., Result],
) -> None:
    script = "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max cpuset.cpus; cat /proc/self/cgroup"

    result = rootless(
        *RUN, "-m", "64m", "--pids-limit", "30", "--cpus", "0.5", "--cpuset-cpus", "0",
        "busybox", "sh", "-c", script,
    )  # fmt: skip

    assert result.stderr == ""
    assert result.lines == ["67108864", "30", "50000 100000", "0", "0::/"]


def test_memory_is_limited_without_root(rootless: Callable[..., Result]) -> None:
    result = rootless(
        *RUN, "-m", "16m", "--memory-swap", "16m", "busybox", *HOG.split(), check=False
    )

    assert result.returncode == 137


def test_running_container_of_a_user_is_paused_measured_and_changed(
    rootless: Callable[..., Result],
) -> None:
    rootless("run", "-d", "--name", "mine", OFFLINE, "-m", "64m", "busybox", "sleep", "1000")
    try:
        rootless("update", "-m", "48m", "mine")
        assert rootless("exec", "mine", "cat", "/sys/fs/cgroup/memory.max").stdout == "50331648\n"
        rootless("pause", "mine")
        assert rootless("inspect", "-f", "{{.State.Status}}", "mine").stdout == "paused\n"
        rootless("unpause", "mine")
        shown = rootless("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "mine")
        assert re.fullmatch(r"[1-9][\d.]*(KiB|MiB) / 48MiB 1\n", shown.stdout)
    finally:
        rootless("rm", "-f", "mine")


def test_limit_that_was_not_delegated_is_told_of(
    machine: Cli, rootless: Callable[..., Result]
) -> None:
    guest(machine, "chown 0 /sys/fs/cgroup/u /sys/fs/cgroup/u/session")
    try:
        warned = rootless(*RUN, "-m", "64m", "busybox", "echo", "ran")
        refused = rootless(*RUN, "--cpus", "0.5", "busybox", "echo", "ran", check=False)
    finally:
        guest(machine, "chown u /sys/fs/cgroup/u /sys/fs/cgroup/u/session")

    assert warned.stdout == "ran\n"
    assert "WARNING: the memory limits are discarded" in warned.stderr
    assert (refused.returncode, refused.stdout) == (125, "")
    assert "NanoCPUs can not be set" in refused.stderr
