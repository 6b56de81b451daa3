"""stdin, stdout and stderr of a container are those of the command, byte for byte."""

from __future__ import annotations

import hashlib
import subprocess
from typing import TYPE_CHECKING

from support.settings import OFFLINE
from support.waiting import Deadline, wait_readable

if TYPE_CHECKING:
    from support.cli import Cli


def test_stdout_and_stderr_stay_apart(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", OFFLINE, "--rm", busybox_image, "sh", "-c", "echo out; echo err >&2")

    assert result.stdout == "out\n"
    assert result.stderr == "err\n"


def test_every_byte_passes_through(wherry: Cli, busybox_image: str) -> None:
    content = bytes(range(256)) * 20_000

    result = wherry("run", OFFLINE, "--rm", "-i", busybox_image, "cat", input=content)

    assert result.output == content


def test_end_of_input_reaches_the_command_while_output_goes_on(
    wherry: Cli, busybox_image: str
) -> None:
    script = "cat >/dev/null; echo after the end"

    result = wherry(
        "run", OFFLINE, "--rm", "-i", busybox_image, "sh", "-c", script, input="some input"
    )

    assert result.stdout == "after the end\n"


def test_without_interactive_the_command_gets_no_input(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", OFFLINE, "--rm", busybox_image, "cat", input="not for you")

    assert result.stdout == ""


def test_last_output_of_a_short_command_is_not_lost(wherry: Cli, busybox_image: str) -> None:
    script = "dd if=/dev/zero bs=1000 count=2000 2>/dev/null"

    result = wherry("run", OFFLINE, "--rm", busybox_image, "sh", "-c", script)

    assert hashlib.sha256(result.output).digest() == hashlib.sha256(bytes(2_000_000)).digest()


def test_output_arrives_when_it_is_written(wherry: Cli, busybox_image: str) -> None:
    process = wherry.start(
        "run", OFFLINE, "--rm", "-i", busybox_image, "sh", "-c", "echo first; cat"
    )
    assert process.stdout is not None

    wait_readable(process.stdout.fileno(), Deadline(60, "the first line"))
    first = process.stdout.readline()
    rest, _ = process.communicate(b"second\n", timeout=60)

    assert (first, rest) == (b"first\n", b"second\n")


def test_command_ends_when_nobody_reads_its_output(wherry: Cli, busybox_image: str) -> None:
    process = wherry.start("run", OFFLINE, "--rm", busybox_image, "yes", stdin=subprocess.DEVNULL)
    assert process.stdout is not None

    process.stdout.read(100)
    process.stdout.close()
    _, _ = process.communicate(timeout=60)

    assert process.returncode != 0


def test_detached_run_prints_the_id_alone(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", OFFLINE, "-d", busybox_image, "sleep", "1000")

    assert len(result.stdout) == 65
    assert set(result.stdout) <= set("0123456789abcdef\n")
    assert result.stderr == ""


def test_logs_keep_the_streams_apart(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "--name", "talker", busybox_image, "sh", "-c", "echo out; echo err >&2")

    result = wherry("logs", "talker")

    assert result.stdout == "out\n"
    assert result.stderr == "err\n"


def test_exec_pipes_input_and_output(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "box", busybox_image, "sleep", "1000")

    result = wherry("exec", "-i", "box", "tr", "a-z", "A-Z", input="shout\n")

    assert result.stdout == "SHOUT\n"
