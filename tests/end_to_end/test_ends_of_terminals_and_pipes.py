"""Terminals that are left, killed and resized; pipes that break, close by half and carry much."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.cli import Cli
    from support.terminal import Terminal

_BIG = 32 << 20


def _box(wherry: Cli, image: str, *options: str, script: str = "exec sleep 1000") -> None:
    wherry("run", OFFLINE, "-d", "--name", "box", *options, image, "sh", "-c", script)


# ---- leaving ----


def test_detach_keys_can_be_chosen(
    terminal: Callable[..., Terminal], wherry: Cli, busybox_image: str
) -> None:
    options = ("--detach-keys", "ctrl-x,q", "--name", "box")
    box = terminal("run", OFFLINE, "-it", *options, busybox_image, "sh")
    box.expect("# ")

    # The default ones mean nothing now, and neither does the beginning of the sequence.
    box.send("\x10\x11\x18x echo go\x7fo 1\x15echo $((40+2))\r")
    box.expect("42")
    box.send("\x18q")

    assert box.wait() == 0
    assert box.attributes() == box.attributes_before
    assert wherry("inspect", "-f", "{{.State.Running}}", "box").stdout == "true\n"


def test_detach_keys_of_the_config_file_count(
    terminal: Callable[..., Terminal], wherry: Cli, busybox_image: str
) -> None:
    config = Path(wherry.environment["HOME"], ".docker")
    config.mkdir()
    (config / "config.json").write_text(json.dumps({"detachKeys": "ctrl-e,e"}))
    os.chmod(config, 0o755)
    wherry("run", OFFLINE, "-dit", "--name", "box", busybox_image, "sh")
    attached = terminal("attach", "box")
    attached.send("echo $((40+2))\r")
    attached.expect("42")

    attached.send("\x05e")

    assert attached.wait() == 0
    assert wherry("inspect", "-f", "{{.State.Running}}", "box").stdout == "true\n"


def test_wrong_detach_keys_are_refused(wherry: Cli, busybox_image: str) -> None:
    _box(wherry, busybox_image, "-it")

    result = wherry("attach", "--detach-keys", "ctrl-nonsense", "box", check=False)

    assert result.returncode == 1
    assert "--detach-keys" in result.stderr


def test_wrong_detach_keys_leave_no_container(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", "--rm", "--detach-keys", "ctrl-?", busybox_image, "true", check=False)

    assert result.returncode == 125
    assert result.stderr.splitlines()[0] == "wherry: unknown character: 'ctrl-?' in --detach-keys"
    assert wherry("ps", "-aq").stdout == ""


def test_process_that_is_left_by_exec_goes_on(
    terminal: Callable[..., Terminal], wherry: Cli, busybox_image: str
) -> None:
    _box(wherry, busybox_image)
    shell = terminal("exec", "-it", "box", "sh", "-c", "echo ready; exec sleep 1234")
    shell.expect("ready")

    shell.send("\x10\x11")

    assert shell.wait() == 0
    assert shell.attributes() == shell.attributes_before
    assert "sleep 1234" in wherry("top", "box").stdout


# ---- sizes ----


def test_size_of_exec_follows(
    terminal: Callable[..., Terminal], wherry: Cli, busybox_image: str
) -> None:
    _box(wherry, busybox_image)
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done"
    shell = terminal("exec", "-it", "box", "sh", "-c", script)
    shell.expect("ready")

    shell.resize(41, 101)

    shell.expect("41 101")
    assert shell.wait() == 0


def test_size_of_attach_is_that_of_its_terminal(
    terminal: Callable[..., Terminal], wherry: Cli, busybox_image: str
) -> None:
    wherry("run", OFFLINE, "-dit", "--name", "box", busybox_image, "sh")

    attached = terminal("attach", "box", rows=19, columns=91)
    attached.send("stty size\r")

    attached.expect("19 91")
    attached.send("exit\r")
    assert attached.wait() == 0


# ---- signals ----


def test_signal_of_kill_reaches_the_command_on_the_terminal(
    terminal: Callable[..., Terminal], wherry: Cli, busybox_image: str
) -> None:
    script = "trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.1; done"
    argv = ("--name", "box", busybox_image, "sh", "-c", script)
    box = terminal("run", OFFLINE, "-it", *argv)
    box.expect("ready")

    wherry("kill", "--signal", "USR1", "box")

    box.expect("caught")
    assert box.wait() == 5
    assert box.attributes() == box.attributes_before


def test_interrupt_reaches_a_command_that_has_no_terminal_of_its_own(
    terminal: Callable[..., Terminal], busybox_image: str
) -> None:
    script = "trap 'echo caught; exit 6' INT; echo ready; while :; do sleep 0.1; done"
    box = terminal("run", OFFLINE, "--rm", busybox_image, "sh", "-c", script)
    box.expect("ready")

    box.send("\x03")

    box.expect("caught")
    assert box.wait() == 6


# ---- ends ----


def test_terminal_is_restored_when_the_container_is_killed(
    terminal: Callable[..., Terminal], wherry: Cli, busybox_image: str
) -> None:
    box = terminal("run", OFFLINE, "-it", "--name", "box", busybox_image, "sh")
    box.expect("# ")
    assert box.attributes() != box.attributes_before

    wherry("kill", "box")

    assert box.wait() == 137
    assert box.attributes() == box.attributes_before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminal_is_restored_when_exec_is_ended(
    terminal: Callable[..., Terminal], wherry: Cli, busybox_image: str, number: signal.Signals
) -> None:
    _box(wherry, busybox_image)
    shell = terminal("exec", "-it", "box", "sh")
    shell.expect("# ")
    assert shell.attributes() != shell.attributes_before

    shell.process.send_signal(number)

    assert shell.wait() != 0
    assert shell.attributes() == shell.attributes_before


# ---- pipes ----


def test_reader_of_logs_may_have_seen_enough(wherry: Cli, busybox_image: str) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; exec sleep 1000"
    _box(wherry, busybox_image, script=script)
    with wherry.start("logs", "--follow", "box") as logs:
        assert logs.stdout is not None
        assert logs.stderr is not None
        assert logs.stdout.readline() == b"line 0\n"

        logs.stdout.close()

        assert logs.stderr.read() == b""
        assert logs.wait(60) in (0, 141)
    assert wherry("inspect", "-f", "{{.State.Running}}", "box").stdout == "true\n"


@pytest.mark.parametrize("command", ["run", "exec"])
def test_much_goes_through_unchanged_both_ways(
    wherry: Cli, busybox_image: str, host_dir: str, command: str
) -> None:
    block = os.urandom(1 << 20)
    with open(f"{host_dir}/big", "wb") as file:
        for _ in range(_BIG // len(block)):
            file.write(block)
    argv: tuple[str, ...]
    if command == "run":
        argv = ("run", OFFLINE, "--rm", "-i", "--log-driver", "none", busybox_image, "cat")
    else:
        _box(wherry, busybox_image)
        argv = ("exec", "-i", "box", "cat")

    with open(f"{host_dir}/big", "rb") as source, open(f"{host_dir}/out", "wb") as out:
        process = wherry.start(*argv, stdin=source, stdout=out)
        _, errors = process.communicate(timeout=120)

    assert (process.returncode, errors) == (0, b"")
    assert _digest(f"{host_dir}/out") == _digest(f"{host_dir}/big")


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_end_of_input_reaches_exec_while_its_output_goes_on(
    wherry: Cli, busybox_image: str
) -> None:
    _box(wherry, busybox_image)
    script = "cat > /dev/null; echo first; sleep 0.2; echo second"

    result = wherry("exec", "-i", "box", "sh", "-c", script, input="until the end")

    assert result.stdout == "first\nsecond\n"


@pytest.mark.parametrize("argv", [("run", "--rm", OFFLINE), ("ps",)], ids=["run", "ps"])
def test_a_disk_behind_the_output_that_is_full_is_told_of(
    wherry: Cli, busybox_image: str, argv: tuple[str, ...]
) -> None:
    words = (busybox_image, "echo", "hello") if argv[0] == "run" else ()
    with open("/dev/full", "wb") as full:
        process = wherry.start(*argv, *words, stdin=subprocess.DEVNULL, stdout=full)
    _, errors = process.communicate(timeout=60)

    assert errors == b"wherry: cannot write: No space left on device\n"
    assert process.returncode == 1


def test_program_without_readers_ends(wherry: Cli, busybox_image: str) -> None:
    _box(wherry, busybox_image)
    process = wherry.start("exec", "box", "yes", stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"y\n"

    process.stdout.close()

    assert process.wait(60) != 0
    assert process.stderr is not None
    process.stderr.close()
    wait_until(lambda: "yes" not in wherry("top", "box").stdout, Deadline(60, "the program to end"))


def test_container_that_goes_when_it_ends_does_so_without_readers(
    wherry: Cli, busybox_image: str
) -> None:
    process = wherry.start("run", "--rm", OFFLINE, busybox_image, "yes", stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"y\n"

    process.stdout.close()

    assert (process.wait(60), process.stderr.read()) == (141, b"")
    process.stderr.close()
    wait_until(
        lambda: not wherry("ps", "--all", "--quiet").stdout, Deadline(60, "the container to go")
    )
