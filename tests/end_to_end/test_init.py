"""`--init`: a first process that forwards signals and reaps, and is nothing of the host."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from support.settings import OFFLINE

if TYPE_CHECKING:
    from support.cli import Cli


def test_program_is_the_child_of_an_init_that_reaps(wherry: Cli, busybox_image: str) -> None:
    # The orphan becomes a child of process 1; nothing of it may be left, nor of our interpreter.
    script = (
        "(sh -c 'exit 3' &); while pgrep -P 1 | grep -qv $$; do :; done;"
        " readlink /proc/1/exe; tr '\\0' ' ' </proc/1/cmdline; echo; echo $$; exit 7"
    )
    result = wherry(
        "run", OFFLINE, "--rm", "--init", busybox_image, "sh", "-c", script, check=False
    )

    executable, command, pid = result.lines
    assert executable == "/memfd:wherry (deleted)"
    assert command == f"wherry-init {pid} "
    assert result.returncode == 7


def test_program_that_a_signal_ends_says_so(wherry: Cli, busybox_image: str) -> None:
    argv = ("run", OFFLINE, "--rm", "--init", busybox_image, "sh", "-c")

    assert wherry(*argv, "kill -KILL $$", check=False).returncode == 137
    assert wherry(*argv, "kill -TERM $$", check=False).returncode == 143


def test_program_that_handles_no_signal_stops_at_once(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "idle", "--init", busybox_image, "sleep", "1000")

    begin = time.monotonic()
    wherry("stop", "-t", "50", "idle")

    assert time.monotonic() - begin < 40
    assert wherry("wait", "idle").stdout == "143\n"


def test_program_that_cannot_be_executed_is_told_of(wherry: Cli, busybox_image: str) -> None:
    argv = ("run", OFFLINE, "--rm", "--init", busybox_image)

    assert wherry(*argv, "/nowhere", check=False).returncode == 127
    # Found, and refused only by execve(2) itself.
    script = "printf 'no program' >/file; chmod +x /file"
    wherry("run", OFFLINE, "--name", "bad", "--init", busybox_image, "sh", "-c", script)
    wherry("commit", "bad", "bad:1")
    result = wherry("run", OFFLINE, "--rm", "--init", "bad:1", "/file", check=False)
    assert result.returncode == 126
    assert 'exec: "/file": exec format error' in result.stderr
