"""What wherry says where a docker user wonders."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from support.settings import OFFLINE
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.cli import Cli


def test_image_that_is_but_a_shell_ends_at_once(wherry: Cli, busybox_image: str) -> None:
    alone = wherry("run", OFFLINE, "-d", "--rm", busybox_image)
    assert len(alone.stdout.strip()) == 64
    assert "sh without input ends at once: add -it, or say a command" in alone.stderr

    told = wherry("run", OFFLINE, "-d", "--rm", busybox_image, "true")
    assert told.stderr == ""


def test_script_with_line_ends_of_windows_names_no_interpreter(
    wherry: Cli, busybox_image: str, host_dir: str
) -> None:
    with open(f"{host_dir}/script", "w", newline="") as file:
        file.write("#!/bin/sh\r\necho hello\r\n")
    os.chmod(f"{host_dir}/script", 0o755)
    bound = ("-v", f"{host_dir}/script:/script")

    told = wherry("run", OFFLINE, "--rm", *bound, busybox_image, "/script", check=False)

    assert told.returncode == 127
    assert "(CRLF)" in told.stderr


def test_program_that_hears_no_signal_should_have_an_init(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "deaf", busybox_image, "sleep", "1000")
    script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    wherry("run", OFFLINE, "-d", "--name", "polite", busybox_image, "sh", "-c", script)
    wait_until(
        lambda: wherry("logs", "polite").stdout == "ready\n",
        Deadline(60, "the program to be ready"),
    )

    assert "`wherry run --init`" in wherry("stop", "-t", "1", "deaf").stderr
    assert wherry("stop", "polite").stderr == ""
    wherry("start", "deaf")
    assert wherry("stop", "-s", "KILL", "deaf").stderr == ""
