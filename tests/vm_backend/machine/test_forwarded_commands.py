"""Commands that a machine carries out: what a user sees is what he sees natively."""

from __future__ import annotations

import json
import os
import platform
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE
from support.terminal import Terminal

if TYPE_CHECKING:
    from support.cli import Cli

pytestmark = [pytest.mark.vm, pytest.mark.network]

RUN = ("run", "--rm", OFFLINE)

KILL_SERVERS = """
import os, signal, time
pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
runner = next(pid for pid in pids if "wherry/runner" in open(f"/proc/{pid}/cmdline").read())
servers, deadline = [], time.monotonic() + 60
while len(servers) < 2 and time.monotonic() < deadline:
    time.sleep(0.01)
    children = open(f"/proc/{runner}/task/{runner}/children").read().split()
    servers = sorted(map(int, children))[1:]
for pid in reversed(servers):
    os.kill(pid, signal.SIGKILL)
"""
"""Kills who serves the next command, then this one; the runner's first child is the agent."""


def test_image_is_not_mounted_where_nobody_would_look(machine: Cli) -> None:
    result = machine("image", "mount", "busybox", check=False)

    assert (result.returncode, result.stdout) == (125, "")
    assert "wherry: an image is mounted where its files are: they are in the machine" in (
        result.stderr
    )


def test_streams_and_exit_code_are_the_containers(machine: Cli) -> None:
    result = machine(*RUN, "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)

    assert (result.returncode, result.stdout, result.stderr) == (7, "out\n", "err\n")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("nothing-of-the-kind",), 127),
        (("/etc",), 126),
        (("sh", "-c", "sleep 60 & kill -9 $!; wait $!"), 137),
    ],
)
def test_exit_codes_are_dockers(machine: Cli, words: tuple[str, ...], code: int) -> None:
    assert machine(*RUN, "busybox", *words, check=False).returncode == code


def test_a_channel_that_was_opened_ahead_may_have_died(machine: Cli) -> None:
    machine("machine", "ssh", "default", "python3", "-c", KILL_SERVERS, check=False, timeout=120)

    assert machine(*RUN, "busybox", "echo", "here", timeout=120).stdout == "here\n"


def test_input_is_binary_clean_and_ends(machine: Cli) -> None:
    content = os.urandom(3 << 20)

    result = machine(*RUN, "-i", "busybox", "cat", input=content, timeout=120)

    assert result.output == content


def test_a_command_that_reads_no_input_leaves_it_to_others(machine: Cli) -> None:
    """`while read line; do wherry exec …; done`"""
    machine("run", "-d", "--name", "one", OFFLINE, "busybox", "sleep", "1000")
    script = "while read line; do {} exec one echo $line; done".format(
        " ".join(machine.account.command)
    )
    process = machine.spawn(["sh", "-c", script])
    output, _ = process.communicate(b"a\nb\nc\n", timeout=60)

    assert output == b"a\nb\nc\n"


def test_a_signal_reaches_the_container(machine: Cli) -> None:
    process = machine.start(
        *RUN, "busybox", "sh", "-c",
        'trap "echo caught; exit 9" TERM; echo ready; while :; do sleep 0.1; done',
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)

    assert (process.returncode, output) == (9, b"caught\n")


def test_a_terminal_has_its_size_and_is_restored(machine: Cli) -> None:
    terminal = Terminal(machine, *RUN, "-it", "busybox", "sh", rows=33, columns=99)
    try:
        terminal.expect("# ")
        terminal.send("stty size; exit 4\n")
        terminal.expect("33 99")
        assert terminal.wait() == 4
        assert terminal.attributes() == terminal.attributes_before
    finally:
        terminal.close()


def test_a_hundred_at_once_over_one_connection(machine: Cli) -> None:
    # Connections to port 22 that are established, as proc_net_tcp(5) writes them.
    count = "grep -c ' [0-9A-F]*:0016 [0-9A-F:]* 01 ' /proc/net/tcp"
    with ThreadPoolExecutor(100) as pool:
        commands = [
            pool.submit(machine, "version", "-f", f"{number}", timeout=250) for number in range(99)
        ]
        connections = pool.submit(
            machine, "machine", "ssh", "default", "sh", "-c", count, timeout=250
        )

    assert [command.result().stdout for command in commands] == [f"{n}\n" for n in range(99)]
    assert connections.result().stdout == "1\n"


def test_files_are_copied_both_ways(machine: Cli) -> None:
    machine("run", "-d", "--name", "box", OFFLINE, "busybox", "sleep", "1000")
    place = Path(machine.directory, "copies")
    (place / "in").mkdir(parents=True, exist_ok=True)
    (place / "in" / "file").write_text("content")

    machine("cp", str(place / "in"), "box:/tmp/")
    machine("cp", "box:/tmp/in", str(place / "out"))
    missing = machine("cp", "box:/nowhere", str(place), check=False)

    assert (place / "out" / "file").read_text() == "content"
    assert missing.returncode == 1
    assert missing.stderr == "wherry: Could not find the file /nowhere in container box\n"


def test_archives_stay_on_the_host(machine: Cli) -> None:
    archive = Path(machine.directory, "saved.tar")
    machine("save", "-o", str(archive), "busybox", timeout=120)
    machine("load", "-i", str(archive), timeout=120)
    refused = machine("save", "-o", f"{archive}.not", "no-such-image", check=False)

    assert archive.stat().st_size > 1_000_000
    assert refused.returncode == 1
    assert not Path(f"{archive}.not").exists()


def test_what_a_command_names_of_the_host_is_the_hosts(machine: Cli) -> None:
    place = Path(machine.directory)
    (place / "secret").write_text("hidden")
    (place / "variables").write_text("FROM_FILE=1\n")

    result = machine(
        *RUN, "--secret", "id=s,src=secret", "--secret", "id=e,env=MINE,type=env,target=E",
        "--env-file", "variables", "-e", "MINE", "--cidfile", "cid",
        "busybox", "sh", "-c", "cat /run/secrets/s; echo $E $FROM_FILE $MINE",
        env={"MINE": "mine"},
    )  # fmt: skip

    assert result.stdout == "hiddenmine 1 mine\n"
    assert len((place / "cid").read_text()) == 64


def test_the_time_zone_is_the_hosts(machine: Cli) -> None:
    document = json.loads(machine("image", "inspect", "busybox").stdout)[0]

    east = machine("images", "--format", "{{.CreatedAt}}", env={"TZ": "<+05>-5"}).stdout
    west = machine("images", "--format", "{{.CreatedAt}}", env={"TZ": "<-05>5"}).stdout

    assert document["Created"].startswith("2024-01-01")
    assert east.startswith("2024-01-01 05:00:00 +0500")
    assert west.startswith("2023-12-31 19:00:00 -0500")


def test_the_client_is_the_hosts_and_the_server_the_guests(machine: Cli) -> None:
    found = json.loads(machine("version", "--format", "json").stdout)
    info = json.loads(machine("info", "--format", "json").stdout)
    guests = machine("machine", "ssh", "default", "uname", "-r").stdout.strip()

    assert found["Client"]["PythonVersion"] == platform.python_version()
    assert found["Server"]["KernelVersion"] == guests != platform.release()
    assert info["ClientInfo"]["PythonVersion"] == platform.python_version()
    assert info["KernelVersion"] == guests


def test_a_shell_completes_what_is_in_the_machine(machine: Cli) -> None:
    machine("create", "--name", "typed-in-part", OFFLINE, "busybox", "true")
    asked = {"_WHERRY_COMPLETE": "bash_complete", "COMP_WORDS": "wherry rm typ", "COMP_CWORD": "2"}

    assert machine(env=asked).lines == ["plain,typed-in-part"]


def test_a_key_that_is_pressed_starts_no_machine(own_machine: Cli) -> None:
    asked = {"_WHERRY_COMPLETE": "bash_complete", "COMP_WORDS": "wherry rm ", "COMP_CWORD": "2"}

    assert own_machine(env=asked).stdout.strip() == ""
    assert own_machine("machine", "ls", "--format", "{{.State}}").lines in ([], ["stopped"])
