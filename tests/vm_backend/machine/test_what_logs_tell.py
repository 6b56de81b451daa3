"""What a machine's owner learns when something goes wrong: in `machine logs`, `ls`, `restart`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.machines import BOOT
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from support.cli import Cli

pytestmark = [pytest.mark.vm, pytest.mark.network]

NONSENSE = """
import socket
from wherry.container.wire import CONTROL, control, frame
stream = socket.socket(socket.AF_UNIX)
stream.connect("/run/wherry-guest/runner.sock")
request = {"op": "program", "argv": ["sleep", "4321"], "environment": {}, "stdin": False}
stream.sendall(control(request | {"terminals": [False] * 3}) + frame(CONTROL, b"nonsense"))
while stream.recv(4096):
    pass
"""
"""Asks the runner for a program, and then for what it does not understand."""


def test_what_fails_in_the_guest_is_told_and_leaves_nothing(machine: Cli) -> None:
    machine("machine", "ssh", "default", "python3", "-c", NONSENSE, timeout=120)

    _wait_for_log(machine, "guest: Traceback")
    _wait_for_log(machine, "guest: json.decoder.JSONDecodeError: Expecting value")
    running = machine("machine", "ssh", "default", "pgrep", "-f", "sleep 4321", check=False)
    assert running.stdout == ""


def test_a_machine_that_could_not_start_again_is_not_stopped(machine: Cli, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    machine("machine", "set", "--share", str(gone))
    gone.rmdir()
    try:
        refused = machine("machine", "restart", check=False, timeout=BOOT)
        states = machine("machine", "ls", "--format", "{{.State}}").lines
    finally:
        machine("machine", "set", "--share", "/tmp")

    assert refused.returncode == 1
    assert refused.stderr.startswith(f"wherry: cannot share {gone}: no such directory\n")
    assert states == ["running"]


def test_the_machine_that_commands_go_to_is_marked(machine: Cli) -> None:
    machine("machine", "init", "other")
    try:
        listed = machine("machine", "ls").lines
        elsewhere = machine("machine", "ls", env={"WHERRY_MACHINE": "other"}).lines
        plain = machine("machine", "ls", "--format", "{{.Name}} {{.Current}}").lines
    finally:
        machine("machine", "rm", "--force", "other")

    assert [line.split("  ")[0] for line in listed] == ["NAME", "default *", "other"]
    assert [line.split("  ")[0] for line in elsewhere] == ["NAME", "default", "other *"]
    assert plain == ["default true", "other false"]


def _wait_for_log(machine: Cli, text: str) -> None:
    wait_until(
        lambda: text in machine("machine", "logs").stdout, Deadline(60, f"{text!r} to be told")
    )
