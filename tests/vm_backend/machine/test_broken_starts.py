"""Machines that are stopped, removed or killed before they are up, or that are in the way."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.machines import BOOT, inspect, start, supervisor
from support.waiting import Deadline, wait_gone, wait_until
from wherry_vm.machines import Machine, Settings
from wherry_vm.orphan import end_orphan

if TYPE_CHECKING:
    from support.world import World

pytestmark = [pytest.mark.vm, pytest.mark.network]


def begin(world: World) -> subprocess.Popen[bytes]:
    """`machine start`, at a time when QEMU runs and the guest is not up."""
    process = world.wherry.start("machine", "start")
    wait_until(lambda: bool(qemu(world)), Deadline(60, "QEMU"))
    return process


def qemu(world: World) -> int:
    """The pid of the machine's QEMU; 0 where there is none."""
    try:
        return int(Path(world.root, "run/machines/default/qemu.pid").read_text())
    except (FileNotFoundError, ValueError):
        return 0


def test_a_machine_can_be_stopped_while_it_starts(own_world: World) -> None:
    process = begin(own_world)
    pid = qemu(own_world)

    own_world.wherry("machine", "stop")

    wait_gone([pid])
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"machine default was stopped before it was up" in errors
    assert own_world.wherry("machine", "ls", "--format", "{{.State}}").lines == ["stopped"]
    assert not Path(own_world.root, "run/machines/default").exists()


def test_a_machine_can_be_removed_while_it_starts(own_world: World) -> None:
    process = begin(own_world)
    refused = own_world.wherry("machine", "rm", "--force", "nosuch", check=False)
    own_world.wherry("machine", "rm", "--force", "default")

    process.communicate(timeout=60)
    assert process.returncode == 1
    assert refused.stderr.startswith("wherry: no such machine: nosuch\n")
    assert own_world.wherry("machine", "ls", "--quiet").lines == []
    assert not Path(own_world.root, "data/machines/default").exists()


def test_a_running_machine_is_removed_by_force_alone(own_world: World) -> None:
    process = begin(own_world)
    refused = own_world.wherry("machine", "rm", "default", input=b"y\n", check=False)

    assert refused.returncode == 1
    assert "machine default is running" in refused.stderr
    process.kill()
    process.communicate()


def test_whatever_is_killed_while_it_starts_the_next_command_puts_it_right(
    own_world: World,
) -> None:
    """The command, its supervisor and QEMU, each at random times."""
    wherry = own_world.wherry
    wherry("volume", "create", "kept", timeout=BOOT)
    wherry("machine", "stop")
    chance = random.Random(5)
    for _ in range(5):
        process = wherry.start("machine", "start")
        time.sleep(chance.uniform(0.2, 4))
        victims = [pid for pid in own_world.processes() if pid != process.pid]
        for pid in chance.sample(victims, k=min(len(victims), chance.randint(0, 2))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM]))
        process.communicate()

    assert wherry("volume", "ls", "--quiet", timeout=BOOT).lines == ["kept"]
    assert inspect(wherry)["State"] == "running"


def test_commands_that_come_while_it_stops_start_it_again(own_world: World) -> None:
    wherry = own_world.wherry
    start(wherry)
    stop = wherry.start("machine", "stop")
    wait_until(lambda: inspect(wherry)["State"] != "running", Deadline(60, "the machine to stop"))
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda _: wherry("ps", "--quiet", timeout=BOOT), range(3)))
    _, errors = stop.communicate(timeout=60)

    assert [each.lines for each in results] == [[], [], []]
    assert (stop.returncode, errors) == (0, b"")
    assert inspect(wherry)["State"] == "running"


def test_what_the_last_boot_of_the_host_left_is_in_nobodys_way(own_world: World) -> None:
    """Sockets that nobody listens at, and a number that another process has now."""
    wherry = own_world.wherry
    wherry("machine", "init")
    run = Path(own_world.root, "run/machines/default")
    run.mkdir(parents=True)
    with subprocess.Popen(["sleep", "1000"]) as other:
        for name in ("supervisor.sock", "qmp.sock", "events.sock", "share0.sock"):
            subprocess.run(
                ["python3", "-c", f"import socket; socket.socket(1).bind({str(run / name)!r})"],
                check=True,
            )
        (run / "supervisor.json").write_text(f'{{"pid": {other.pid}}}')
        (run / "qemu.pid").write_text(f"{other.pid}\n")

        assert wherry("machine", "ls", "--format", "{{.State}}").lines == ["stopped"]
        wherry("machine", "stop", "--force")
        start(wherry)
        wherry("machine", "stop")

        assert other.poll() is None
        other.kill()


def test_the_qemu_of_another_place_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path))
    machine = Machine(name="default", settings=Settings())
    run = Path(machine.run_directory)
    run.mkdir(parents=True)

    def stand_in(disk: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            ["bash", "-c", f'exec -a "qemu -name wherry-default {disk}" sleep 1000']
        )
        wait_until(
            lambda: b"wherry-default" in Path(f"/proc/{process.pid}/cmdline").read_bytes(),
            Deadline(60, "the process"),
        )
        (run / "qemu.pid").write_text(str(process.pid))
        return process

    with stand_in("/elsewhere/data.img") as other:
        end_orphan(machine, 0)
        assert other.poll() is None
        other.kill()
    with stand_in(machine.file("data.img")) as ours:
        end_orphan(machine, 0)
        wait_gone([ours.pid])


def test_a_qemu_that_is_left_behind_is_stopped_with_its_machine(own_world: World) -> None:
    wherry = own_world.wherry
    start(wherry)
    pid = qemu(own_world)
    os.kill(pid, signal.SIGSTOP)  # it cannot notice that its supervisor is gone
    os.kill(supervisor(wherry), signal.SIGKILL)

    wherry("machine", "stop", "--force")

    wait_gone([pid])
