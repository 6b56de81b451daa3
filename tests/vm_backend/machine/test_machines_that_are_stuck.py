"""A QEMU that is stuck, a guest that is, and a supervisor: each is told from the others."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from support.machines import BOOT, inspect, start, supervisor
from support.waiting import Deadline, wait_gone, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.cli import Cli

pytestmark = [pytest.mark.vm, pytest.mark.network]


SILENCE = """
. /usr/lib/wherry/common
device=$(port org.wherry.events)
for each in /proc/[0-9]*; do
    if ls -l $each/fd 2>/dev/null | grep -q "$device$"; then
        kill -STOP ${each#/proc/}
    fi
done
"""
"""Stops the guest's agent."""


@pytest.fixture
def stopped() -> Iterator[list[int]]:
    """Processes that go on again when the test is over, if they are still there."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        if os.path.exists(f"/proc/{pid}"):
            os.kill(pid, signal.SIGCONT)


def state(wherry: Cli) -> str:
    return wherry("machine", "ls", "--format", "{{.State}}").stdout.strip()


def test_a_qemu_that_is_stuck_is_told_from_a_guest_that_is(
    own_machine: Cli, stopped: list[int]
) -> None:
    start(own_machine)
    qemu = int(str(inspect(own_machine)["Pid"]))
    stopped.append(qemu)
    waiting = own_machine.start("machine", "ssh", "default", "sh", "-c", "echo there; sleep 1000")
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == b"there\n"
    os.kill(qemu, signal.SIGSTOP)
    wait_until(lambda: state(own_machine) == "unresponsive", Deadline(90, "the machine's state"))
    _, said = waiting.communicate(timeout=60)
    refused = own_machine("ps", check=False, timeout=BOOT)
    os.kill(qemu, signal.SIGCONT)
    wait_until(lambda: state(own_machine) == "running", Deadline(90, "the machine's state"))
    assert own_machine("ps", "--quiet", timeout=BOOT).lines == []

    own_machine("machine", "ssh", "default", "sh", "-c", SILENCE, check=False)
    wait_until(lambda: state(own_machine) == "unresponsive", Deadline(90, "the machine's state"))
    told = own_machine("machine", "logs").stdout
    own_machine("machine", "stop", "--force")

    assert waiting.returncode == 1
    assert b"wherry: machine default does not answer: it has been silent" in said
    assert refused.returncode == 1
    assert refused.stderr.startswith("wherry: machine default does not answer: it has been silent")
    assert "and so has QEMU's monitor: QEMU is stuck; its console said last: '" in refused.stderr
    assert "wherry machine stop --force default" in refused.stderr
    assert "and QEMU is well; its console said last: '" in told
    wait_gone([qemu])


def test_a_supervisor_that_does_not_answer_is_killed_where_somebody_insists(
    own_machine: Cli, stopped: list[int]
) -> None:
    start(own_machine)
    pid, qemu = supervisor(own_machine), int(str(inspect(own_machine)["Pid"]))
    stopped.append(pid)
    os.kill(pid, signal.SIGSTOP)

    assert state(own_machine) == "unresponsive"
    own_machine("machine", "stop", "--force")

    wait_gone([pid, qemu])
    assert state(own_machine) == "stopped"


def test_a_machine_is_stopped_while_a_command_runs_in_it(own_machine: Cli) -> None:
    start(own_machine)
    process = own_machine.start("machine", "ssh", "default", "sh", "-c", "echo there; sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"
    own_machine("machine", "stop", timeout=BOOT)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert b"wherry: the connection to the machine broke off" in errors
    assert state(own_machine) == "stopped"
