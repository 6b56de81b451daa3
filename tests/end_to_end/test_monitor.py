"""What looks after a container while nobody looks at it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from support.accounts import LOADED_FROM
from support.memory import keepers, pss, wait_settled
from support.settings import as_root, of_root, on_linux
from support.waiting import Deadline, wait_readable, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.cli import Cli
    from support.outside import Outside
    from support.terminal import Terminal
    from support.world import World


def _box(wherry: Cli, *options: str, name: str = "box", script: str = "sleep 1000") -> str:
    argv = (
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        name,
        *options,
        "busybox",
        "sh",
        "-c",
        script,
    )
    return wherry(*argv).stdout.strip()


def _state(wherry: Cli, text: str, name: str = "box") -> str:
    return wherry("inspect", "-f", text, name).stdout.strip()


def _actions(wherry: Cli, container: str) -> list[str]:
    argv = ("events", "--since", "1h", "--until", "0s", "--filter", f"container={container}")
    return wherry(*argv, "--format", "{{.Action}}").lines


# ---- what it keeps ----


@on_linux  # in a machine it is no child of the caller's
@pytest.mark.parametrize("settled", [False, True])
def test_monitor_holds_nothing_of_its_caller(
    wherry: Cli, outside: Outside, world: World, busybox_image: str, settled: bool
) -> None:
    path = f"{world.directory}/lock"
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(lock.fileno(), True)
        other = wherry.account.uid != os.geteuid()
        process = subprocess.Popen(
            [*wherry.account.command, "run", "-d", "--network", "none", "--name", "box",
             "busybox", "sleep", "1000"],
            env=wherry.environment, cwd=wherry.directory, close_fds=False,
            stdout=subprocess.DEVNULL,
            user=wherry.account.uid if other else None,
            group=wherry.account.gid if other else None,
            extra_groups=[] if other else None,
        )  # fmt: skip
        assert process.wait(60) == 0
    monitor = outside.monitor()
    if settled:
        wait_settled(world.root, Deadline(60, "the monitor to settle"))

    with open(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    held = outside.descriptors(monitor)
    # The memory file is what it hands over to itself; a moment later that is closed.
    own = ("/dev/null", "anon_inode:", "pipe:", "socket:", "/memfd:wherry-monitor")
    # Where this host is busy it is met while it loads what it goes on with.
    allowed = own if settled else (*own, *LOADED_FROM)
    assert [
        one for one in held if not one.startswith(allowed) and not one.endswith("/container.log")
    ] == []
    assert len(held) < 16


def test_container_gets_three_descriptors(wherry: Cli, busybox_image: str) -> None:
    script = "for one in /proc/$$/fd/*; do echo ${one##*/}; done"

    result = wherry("run", "--rm", "--network", "none", "busybox", "sh", "-c", script)

    # A shell that lists a directory has it open meanwhile.
    assert result.lines[:3] == ["0", "1", "2"]
    assert len(result.lines) <= 4


def test_container_ignores_no_signal(wherry: Cli, busybox_image: str) -> None:
    argv = ("--network", "none", "busybox", "grep", "SigIgn", "/proc/self/status")

    _, ignored = wherry("run", "--rm", *argv).stdout.split()

    # 32 and 33 are the C library's own: nobody can change what they were when we began.
    assert int(ignored, 16) & ~(0b11 << 31) == 0


@as_root
def test_twenty_idle_containers_cost_less_than_100_megabytes(
    wherry: Cli, world: World, busybox_image: str
) -> None:
    for _ in range(20):
        wherry("run", "-d", "--network", "none", "busybox", "sleep", "1000000")
    wait_settled(world.root, Deadline(60, "the monitors to settle"))

    # What has started them may be on its way out.
    wait_until(
        lambda: len(keepers(world.base, "sleep")) == 20, Deadline(60, "their monitors alone")
    )
    assert pss(keepers(world.base, "sleep")) < 100


@on_linux  # the monitor is asked to settle by its own socket
def test_idle_monitor_sleeps(
    wherry: Cli, outside: Outside, world: World, busybox_image: str
) -> None:
    _box(wherry)
    monitor = outside.monitor()
    wait_settled(world.root, Deadline(60, "the monitor to settle"))

    def switches() -> str:
        return outside("grep", "ctxt_switches", f"/proc/{monitor}/status")

    def sleeps() -> bool:
        before = switches()
        time.sleep(1)
        return switches() == before

    # Who asked it something hangs up a moment after the answer.
    wait_until(sleeps, Deadline(60, "a second without work"))


# ---- its new interpreter ----


def test_everything_goes_on_in_the_new_interpreter(
    wherry: Cli, outside: Outside, busybox_image: str
) -> None:
    script = (
        "trap 'echo bye; exit 7' TERM; echo -n half; read one; echo \" $one\"; cat;"
        " sleep 1000 & wait"
    )
    process = wherry.start(
        "run", "-i", "--network", "none", "--name", "box", "busybox", "sh", "-c", script
    )
    assert process.stdin is not None and process.stdout is not None
    wait_readable(process.stdout.fileno(), Deadline(60, "the first word"))
    monitor = outside.monitor()
    wait_until(lambda: outside.has_settled(monitor), Deadline(60, "the monitor to settle"))

    process.stdin.write(b"line\nmore\n")
    process.stdin.close()
    heard = process.stdout.readline() + process.stdout.readline()
    wherry("stop", "box")

    assert heard == b"half line\nmore\n"
    assert process.stdout.read() == b"bye\n"
    assert process.wait(60) == 7
    assert wherry("logs", "box").stdout == "half line\nmore\nbye\n"


def test_terminal_goes_on_in_the_new_interpreter(
    terminal: Callable[..., Terminal], outside: Outside, busybox_image: str
) -> None:
    box = terminal("run", "-it", "--network", "none", "--name", "box", "busybox", "sh")
    box.expect("# ")
    monitor = outside.monitor()
    wait_until(lambda: outside.has_settled(monitor), Deadline(60, "the monitor to settle"))

    box.send("echo $((6 * 7))\r")
    box.expect("42")
    box.resize(30, 99)
    box.send("stty size\r")
    box.expect("30 99")
    box.send("\x10\x11")
    assert box.wait() == 0

    again = terminal("attach", "box")
    again.send("echo $((7 * 8)); exit 4\r")
    again.expect("56")
    assert again.wait() == 4


# ---- clients ----


def test_container_does_not_wait_for_a_stopped_onlooker(
    wherry: Cli, outside: Outside, busybox_image: str
) -> None:
    script = "read go; yes | head -c 8000000; echo over"
    _box(wherry, "-i", script=script)
    onlooker = wherry.start("attach", "--no-stdin", "box")
    outside.wait_for_clients(1)
    onlooker.send_signal(signal.SIGSTOP)
    try:
        wherry("attach", "box", input="go\n", timeout=120)

        assert wherry("logs", "--tail", "1", "box").stdout.endswith("over\n")
    finally:
        onlooker.send_signal(signal.SIGCONT)
        onlooker.kill()
        onlooker.communicate()


def test_much_goes_in_while_much_comes_out(wherry: Cli, busybox_image: str) -> None:
    content = os.urandom(8_000_000)
    script = "head -c 4000000 /dev/zero; cat; head -c 4000000 /dev/zero"
    argv = ("run", "--rm", "-i", "--log-driver", "none", "--network", "none", "busybox")

    result = wherry(*argv, "sh", "-c", script, input=content)

    assert result.output == bytes(4_000_000) + content + bytes(4_000_000)


def test_killed_client_leaves_the_container_running(wherry: Cli, busybox_image: str) -> None:
    argv = (
        "run",
        "--network",
        "none",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "echo up; sleep 1000",
    )
    process = wherry.start(*argv)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"

    process.kill()
    process.wait(60)

    assert _state(wherry, "{{.State.Status}}") == "running"


def test_input_from_a_file_ends(wherry: Cli, world: World, busybox_image: str) -> None:
    with open(f"{world.directory}/words", "w+b") as file:
        file.write(b"from a file\n")
        file.seek(0)
        argv = ("run", "--rm", "-i", "--network", "none", "busybox", "cat")
        process = wherry.start(*argv, stdin=file)
        assert process.communicate(timeout=60)[0] == b"from a file\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_harm_nothing(wherry: Cli, busybox_image: str, closed: str) -> None:
    words = " ".join(wherry.account.command)
    script = f"{words} run --rm --network none busybox sh -c 'echo out; exit 3' {closed}"

    process = wherry.spawn(["sh", "-c", script])

    process.communicate(timeout=60)
    assert process.returncode == 3


def test_signals_are_passed_on_unless_told_otherwise(wherry: Cli, busybox_image: str) -> None:
    script = "trap 'echo caught; exit 9' USR1; echo up; while :; do sleep 0.1; done"
    argv = ("run", "--network", "none", "--name", "box", "busybox", "sh", "-c", script)
    process = wherry.start(*argv)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"

    process.send_signal(signal.SIGUSR1)

    assert process.communicate(timeout=60)[0] == b"caught\n"
    assert process.returncode == 9


# ---- logs ----


def test_follower_sees_every_line_once_while_files_turn_over(
    wherry: Cli, outside: Outside, busybox_image: str
) -> None:
    script = "for i in $(seq 1000); do echo $i; usleep 1000; done"
    _box(wherry, "--log-opt", "max-size=15k", script=script)

    followed = wherry("logs", "-f", "box")

    assert followed.lines == [str(number) for number in range(1, 1001)]
    assert "container.log.4" in outside("ls", outside.directory()).split()
    assert wherry("logs", "--tail", "3", "box").lines == ["998", "999", "1000"]


def test_follower_ends_with_a_killed_monitor(
    wherry: Cli, outside: Outside, busybox_image: str
) -> None:
    _box(wherry, script="echo up; sleep 1000")
    follower = wherry.start("logs", "-f", "box")
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"up\n"

    outside("kill", "-KILL", str(outside.monitor()))

    assert follower.wait(60) == 0
    follower.communicate()


# ---- ends ----


def test_restarts_leak_no_descriptor(wherry: Cli, outside: Outside, busybox_image: str) -> None:
    _box(wherry, "--restart", "always", script="sleep 0.05")
    monitor = outside.monitor()

    def descriptors_after(restarts: int) -> int:
        wait_until(
            lambda: int(_state(wherry, "{{.RestartCount}}")) >= restarts, Deadline(60, "restarts")
        )
        wait_until(
            lambda: _state(wherry, "{{.State.Status}}") == "restarting", Deadline(60, "a pause")
        )
        return len(outside.descriptors(monitor))

    # A pause may end, or somebody who has asked something hang up, while they are counted.
    few = min(descriptors_after(2) for _ in range(3))
    wait_until(lambda: descriptors_after(5) <= few, Deadline(60, f"{few} descriptors"))


def test_restart_policy_counts_failures(wherry: Cli, busybox_image: str) -> None:
    _box(wherry, "--restart", "on-failure:2", script="echo run; exit 3")

    assert wherry("wait", "box").stdout == "3\n"
    assert _state(wherry, "{{.RestartCount}} {{.State.Status}}") == "2 exited"
    assert wherry("logs", "box").stdout == "run\n" * 3


def test_stopped_container_stays_stopped_until_it_is_started(
    wherry: Cli, busybox_image: str
) -> None:
    _box(wherry, "--restart", "always", script="sleep 0.1")
    wait_until(lambda: _state(wherry, "{{.RestartCount}}") != "0", Deadline(60, "a restart"))

    wherry("stop", "-t", "0", "box")
    stopped = _state(wherry, "{{.State.Status}}")
    wherry("start", "box")

    assert stopped == "exited"
    assert _state(wherry, "{{.State.Status}}") in ("running", "restarting")
    wherry("rm", "-f", "box")
    assert wherry("ps", "-aq").stdout == ""


def test_renamed_container_is_removed_with_its_new_name(
    wherry: Cli, outside: Outside, busybox_image: str
) -> None:
    _box(wherry, "--rm", name="old")
    wherry("rename", "old", "new")

    wherry("stop", "-t", "0", "new")

    assert wherry("ps", "-aq").stdout == ""
    assert outside("ls", f"{outside.data}/names") == ""


@of_root
def test_paused_container_can_be_stopped_and_killed(wherry: Cli, busybox_image: str) -> None:
    for command in (("stop", "-t", "0", "box"), ("kill", "box"), ("rm", "-f", "box")):
        _box(wherry)
        wherry("pause", "box")
        wherry(*command)
        if command[0] == "kill":
            wherry("wait", "box")
        wherry("rm", "-f", "box")

    assert wherry("ps", "-aq").stdout == ""


def test_stop_signal_and_timeout_are_kept_to(wherry: Cli, busybox_image: str) -> None:
    script = "trap 'exit 5' USR1; trap : TERM; echo up; while :; do sleep 0.1; done"
    _box(wherry, "--stop-signal", "USR1", "--stop-timeout", "100", script=script)
    wait_until(lambda: wherry("logs", "box").stdout == "up\n", Deadline(60, "the traps"))

    wherry("stop", "box", timeout=60)

    assert _state(wherry, "{{.State.ExitCode}} {{.State.OOMKilled}}") == "5 false"


def test_events_follow_in_order(wherry: Cli, busybox_image: str) -> None:
    container = _box(wherry, "--rm")
    follower = wherry.start(
        "events", "--since", "1h", "--filter", f"container={container}", "--format", "{{.Action}}"
    )
    assert follower.stdout is not None

    wherry("stop", "-t", "0", "box")

    heard: list[bytes] = []
    while not heard or heard[-1] != b"destroy\n":
        heard.append(follower.stdout.readline())
    follower.kill()
    follower.communicate()
    assert b"".join(heard).decode().split() == [
        "create", "start", "kill", "kill", "die", "stop", "destroy",
    ]  # fmt: skip


def test_times_of_a_run_are_in_order(wherry: Cli, busybox_image: str) -> None:
    wherry("run", "--network", "none", "--name", "box", "busybox", "true")

    started, finished = _state(wherry, "{{.State.StartedAt}} {{.State.FinishedAt}}").split()

    assert _state(wherry, "{{.Created}}") <= started < finished


def test_container_of_a_monitor_that_hangs_can_be_removed(
    wherry: Cli, outside: Outside, busybox_image: str
) -> None:
    _box(wherry)
    outside("kill", "-STOP", str(outside.monitor()))

    wherry("rm", "-f", "box")

    assert wherry("ps", "-aq").stdout == ""


def test_third_interrupt_gives_up_on_the_container(wherry: Cli, busybox_image: str) -> None:
    script = "trap 'echo no' INT; echo up; while :; do sleep 0.1; done"
    argv = ("run", "--network", "none", "--name", "box", "busybox", "sh", "-c", script)
    process = wherry.start(*argv)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"

    for _ in range(2):
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"no\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert process.returncode != 0
    assert b"forcefully exiting" in errors
    assert _state(wherry, "{{.State.Status}}") == "running"


def test_interrupt_ends_the_command_alone_without_proxying(wherry: Cli, busybox_image: str) -> None:
    argv = ("run", "--sig-proxy=false", "--network", "none", "--name", "box", "busybox")
    process = wherry.start(*argv, "sh", "-c", "echo up; sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert process.returncode == 130
    assert _state(wherry, "{{.State.Status}}") == "running"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_terminal_is_restored_when_the_command_is_ended(
    terminal: Callable[..., Terminal], wherry: Cli, busybox_image: str, number: signal.Signals
) -> None:
    argv = ("run", "-it", "--sig-proxy=false", "--network", "none", "--name", "box", "busybox")
    box = terminal(*argv, "sh")
    box.expect("# ")

    box.process.send_signal(number)
    box.wait()

    assert box.attributes() == box.attributes_before


# ---- health ----


def _health(wherry: Cli) -> str:
    return _state(wherry, "{{.State.Health.Status}}")


def test_health_follows_the_check(wherry: Cli, busybox_image: str) -> None:
    container = _box(
        wherry, "--health-cmd", "test -e /well", "--health-interval", "200ms",
        "--health-retries", "2",
    )  # fmt: skip
    before = _health(wherry)
    wait_until(lambda: _health(wherry) == "unhealthy", Deadline(60, "unhealthy"))

    wherry("exec", "box", "touch", "/well")

    wait_until(lambda: _health(wherry) == "healthy", Deadline(60, "healthy"))
    assert before in ("starting", "unhealthy")
    told = [action for action in _actions(wherry, container) if action.startswith("health")]
    assert told == ["health_status: unhealthy", "health_status: healthy"]


def test_check_that_takes_too_long_fails_and_leaves_no_process(
    wherry: Cli, outside: Outside, busybox_image: str
) -> None:
    _box(
        wherry, "--health-cmd", "sleep 500", "--health-interval", "100ms",
        "--health-timeout", "300ms", "--health-retries", "2",
    )  # fmt: skip
    wait_until(lambda: _health(wherry) == "unhealthy", Deadline(60, "unhealthy"))

    log = json.loads(_state(wherry, "{{json .State.Health.Log}}"))

    assert log[0]["ExitCode"] == -1
    assert "exceeded timeout" in log[0]["Output"]
    # One that has just ended is a zombie for a moment, and not for longer.
    for pid in _zombies_below(outside, outside.monitor()):
        stat = ("cat", f"/proc/{pid}/stat")
        wait_until(partial(_says_nothing, outside, *stat), Deadline(60, "a zombie to go"))


def _says_nothing(outside: Outside, *argv: str) -> bool:
    return outside(*argv) == ""


def _zombies_below(outside: Outside, parent: int) -> list[str]:
    children = outside("cat", f"/proc/{parent}/task/{parent}/children").split()
    return [
        pid
        for pid in children
        if outside("cat", f"/proc/{pid}/stat").rpartition(") ")[2].startswith("Z")
    ]
