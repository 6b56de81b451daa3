"""Options of `run` that docker has not, or where it has a word for every host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE, on_linux

if TYPE_CHECKING:
    from support.cli import Cli


def test_timeout_kills_the_container(wherry: Cli, busybox_image: str) -> None:
    argv = ("run", OFFLINE, "--rm", "--timeout", "1", busybox_image, "sleep", "1000")

    assert wherry(*argv, check=False).returncode == 137


def test_time_zone_comes_from_the_host(wherry: Cli, busybox_image: str) -> None:
    if not os.path.exists("/usr/share/zoneinfo/Asia/Tokyo"):
        pytest.skip("this host has no time zones (package tzdata)")
    argv = ("run", OFFLINE, "--rm", "--tz")

    assert wherry(*argv, "Asia/Tokyo", busybox_image, "date", "+%z").stdout == "+0900\n"
    for name in ("Asia/Nowhere", "../../../etc/passwd"):
        refused = wherry(*argv, name, busybox_image, "date", check=False)
        assert refused.returncode == 125
        assert f"unknown time zone {name}" in refused.stderr


def test_process_id_is_written_to_a_file(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "box", "--pidfile", "pid", busybox_image,
           "sleep", "1000")  # fmt: skip

    assert (
        Path(host_dir, "pid").read_text()
        == wherry("inspect", "-f", "{{.State.Pid}}", "box").stdout.strip()
    )
    wherry("rm", "-f", "box")


@on_linux
def test_descriptors_are_passed_on(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    Path(host_dir, "given").write_text("from outside\n")
    command = " ".join(wherry.account.command)
    script = (
        f"exec {command} run {OFFLINE} --rm --preserve-fds $0 {busybox_image} cat /proc/self/fd/3"
    )

    def run(shell: str, count: str) -> tuple[int, bytes]:
        process = wherry.spawn(["sh", "-c", shell, count])
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    assert run(f"{script} 3<given", "1") == (0, b"from outside\n")
    assert run(script, "1") == (125, b"")


def test_image_goes_with_its_last_container(wherry: Cli, busybox_image: str) -> None:
    wherry("tag", busybox_image, "short-lived:1")
    wherry("rmi", busybox_image)

    wherry("run", OFFLINE, "--rm", "--rmi", "short-lived:1", "true")

    assert wherry("images", "-q").stdout == ""


def test_limit_that_cannot_be_enforced_is_told_of(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", OFFLINE, "--rm", "--memory", "64m", "--pids-limit", "50",
                    busybox_image, "echo", "done")  # fmt: skip

    assert result.stdout == "done\n"
    for name in ("memory", "pids"):
        controllers = wherry("info", "-f", "{{.MemoryLimit}} {{.PidsLimit}}").stdout.split()
        enforced = controllers[("memory", "pids").index(name)] == "true"
        assert (f"the {name} limits are discarded" in result.stderr) is not enforced


def test_devices_that_need_a_driver_are_refused(wherry: Cli, busybox_image: str) -> None:
    gpu = wherry("run", OFFLINE, "--rm", "--gpus", "all", busybox_image, "true", check=False)
    assert gpu.returncode == 125
    assert 'could not select device driver "" with capabilities: [[gpu]]' in gpu.stderr

    cdi = wherry("run", OFFLINE, "--rm", "--device", "nvidia.com/gpu=all", busybox_image, "true",
                 check=False)  # fmt: skip
    assert cdi.returncode == 125
    assert "unresolvable CDI devices nvidia.com/gpu=all" in cdi.stderr


def test_personality_is_seen_by_the_program(wherry: Cli, busybox_image: str) -> None:
    argv = ("run", OFFLINE, "--rm", "--personality", "linux32", busybox_image, "uname", "-m")

    assert wherry(*argv).stdout.strip() in ("i686", "armv8l")


def test_failed_runs_leave_no_container(wherry: Cli, busybox_image: str) -> None:
    for options in (("--tz", "No/Where"), ("--gpus", "all"), ("--device", "/dev/nowhere"),
                    ("--sysctl", "vm.swappiness=1"), ("-u", "nobody-at-all"),
                    ("--rootfs",)):  # fmt: skip
        refused = wherry("run", OFFLINE, "--rm", *options, busybox_image, "true", check=False)
        assert refused.returncode == 125, options
        assert refused.stderr.startswith("wherry: "), options

    assert wherry("ps", "-aq").stdout == ""
