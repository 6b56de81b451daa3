"""What a mistake on the command line prints, and its exit code: the real command, as docker's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CORE = Path(__file__).parents[3] / "core"


def run(*words: str, root: str | os.PathLike[str] = "/nonexistent", **environment: str):  # type: ignore[no-untyped-def]
    return subprocess.run(
        [sys.executable, "-m", "wherry", *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={
            "PATH": os.environ.get("PATH", ""),
            "SYSTEMROOT": os.environ.get("SYSTEMROOT", ""),
            "PYTHONPATH": os.pathsep.join(
                str(CORE.parent / name) for name in ("core", "linux_backend", "vmimage")
            ),
            "WHERRY_ROOT": str(root),
            "HOME": str(root),
            **environment,
        },
        check=False,
        timeout=60,
    )


CASES = [
    # The line, its exit code, and the beginning of the one line that tells.
    ("run --foo image", 125, "unknown flag: --foo"),
    ("rm --foo x", 125, "unknown flag: --foo"),
    ("run -zx image", 125, "unknown shorthand flag: 'z' in -zx"),
    ("kill --signal", 125, "flag needs an argument: --signal"),
    ("run -e", 125, "flag needs an argument: 'e' in -e"),
    ("run", 1, "'wherry run' requires at least 1 argument"),
    ("rm", 1, "'wherry rm' requires at least 1 argument"),
    ("container wait", 1, "'wherry container wait' requires at least 1 argument"),
    ("rename a", 1, "'wherry rename' requires 2 arguments"),
    ("port", 1, "'wherry port' requires at least 1 and at most 2 arguments"),
    ("volume ls x", 1, "'wherry volume ls' accepts no arguments"),
    ("foo", 1, "unknown command: wherry foo"),
    ("volume foo", 1, "unknown command: wherry volume foo"),
    ("--foo ps", 125, "unknown flag: --foo"),
    ("run -m x image", 125, 'invalid argument "x" for "-m, --memory" flag: invalid size: \'x\''),
    ("run -m 1x image", 125, "invalid suffix: 'x'"),
    ("run -m 1m image", 125, "Minimum memory limit allowed is 6MB"),
    ("run --pull=x image", 125, "invalid pull option: 'x': must be one of"),
    ("run --name x/y image", 125, "Invalid container name (x/y), only [a-zA-Z0-9]"),
    ("create --name x/y image", 1, "Invalid container name (x/y), only [a-zA-Z0-9]"),
    ("run --rm --restart always image", 125, "conflicting options: cannot specify both --restart"),
    ("run --restart foo image", 125, "invalid restart policy: unknown policy 'foo'"),
    ("run --restart always:3 image", 125, "maximum retry count can only be used with"),
    ("run --restart on-failure:x image", 125, "maximum retry count must be an integer"),
    ("run -d -a stdin image", 125, "conflicting options: cannot specify both --attach and"),
    ("run -a foo image", 125, "valid streams are STDIN, STDOUT and STDERR"),
    ("run -it image", 1, "the input device is not a TTY"),
    ("run --ulimit foo=1 image", 125, "invalid ulimit type: foo"),
    ("run --ulimit nofile=5:3 image", 125, "ulimit soft limit must be less than or equal"),
    ("run --add-host foo image", 125, 'bad format for add-host: "foo"'),
    ("run --dns x image", 125, "IP address is not correctly formatted: x"),
    ("run --no-healthcheck --health-cmd x image", 125, "--no-healthcheck conflicts with"),
    ("run --health-interval -1s image", 125, "--health-interval cannot be negative"),
    ("run --health-interval 1us image", 125, "Interval in Healthcheck cannot be less than 1ms"),
    ("run --log-driver none --log-opt a=b image", 125, "invalid logging opts for driver none"),
    ("run --log-driver foo image", 125, "logger: no log driver named 'foo' is registered"),
    ("run --gpus x=y image", 125, "unexpected key 'x' in 'x=y'"),
    ("run --network name=x,foo=y image", 125, "invalid field key foo"),
    ("run --network x --network x image", 125, 'network "x" is specified multiple times'),
    ("run --network host --network-alias x image", 125, "network-scoped aliases are only"),
    ("run --network container:x -p 80:80 image", 125, "conflicting options: port publishing and"),
    ("run --network container:x -h me image", 125, "conflicting options: hostname and the network"),
    ("run --pid x image", 125, "--pid: invalid PID mode"),
    ("run --uts x image", 125, "--uts: invalid UTS mode"),
    ("run --userns x image", 125, "--userns: invalid USER mode"),
    ("run --cgroupns x image", 125, "--cgroupns: invalid CGROUP mode"),
    ("run --ipc x image", 125, "invalid IPC mode"),
    ("run --device-read-bps x image", 125, "bad format: x"),
    ("run --blkio-weight 5 image", 125, "Range of blkio weight is from 10 to 1000"),
    ("run --device-cgroup-rule x image", 125, "invalid device cgroup format 'x'"),
    ("run --device a:b:c:d image", 125, "invalid device specification: a:b:c:d"),
    ("run --device /dev/x:/y:q image", 125, "invalid device mode: q"),
    ("run --security-opt foo image", 125, 'Invalid --security-opt: "foo"'),
    ("run --security-opt seccomp=/nope image", 125, "opening seccomp profile (/nope) failed"),
    ("run --cap-add foo image", 125, 'invalid capability: "foo"'),
    ("run --mac-address x image", 125, "x is not a valid mac address"),
    ("run -w rel image", 125, "the working directory 'rel' is invalid"),
    ("run --platform a/b/c/d image", 125, "error parsing specified platform"),
    ("run --env-file /nope image", 125, "open /nope: no such file or directory"),
    ("run -v /a:/b -v /c:/b image", 125, "Duplicate mount point: /b"),
    ("run --tmpfs x image", 125, "mount path must be absolute"),
    ("run --secret id=x,src=/missing image", 125, "secret x: cannot read /missing"),
    ("run --stop-signal FOO image", 125, "invalid signal: FOO"),
    ("run --oom-score-adj 2000 image", 125, "range for oom score adj is [-1000, 1000]"),
    ("run -m 8m --memory-swap 7m image", 125, "Minimum memoryswap limit should be larger than"),
    ("run --memory-swap 9m image", 125, "You should always set the Memory limit when using"),
    ("run --memory-reservation 1m image", 125, "Minimum memory reservation allowed is 6MB"),
    ("run -m 8m --memory-reservation 9m image", 125, "can not be less than memory reservation"),
    ("run --cpu-period 10 image", 125, "CPU cfs period can not be less than 1ms (i.e. 1000)"),
    ("run --cpu-quota 10 image", 125, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
    ("run --cpuset-cpus x image", 125, "Invalid value x for cpuset cpus"),
    ("run --cpuset-mems 3-1 image", 125, "Invalid value 3-1 for cpuset mems"),
    ("run --blkio-weight 5 image", 125, "Range of blkio weight is from 10 to 1000"),
    ("run --device-read-bps /dev/sda image", 125, "bad format: /dev/sda"),
    ("run --device-write-iops /dev/sda:x image", 125, "Number must be a positive integer"),
    ("run --blkio-weight-device /dev/sda:5 image", 125, "invalid weight for device: /dev/sda:5"),
    ("run --cgroup-conf memory.high image", 125, "it has to be key=value"),
    ("run --cgroupns x image", 125, "--cgroupns: invalid CGROUP mode"),
    ("run --device-cgroup-rule x image", 125, "invalid device cgroup format 'x'"),
    ("run --device /dev/null:z:/y image", 125, "invalid device mode: /y"),
    ("run --gpus some image", 125, 'value must be either "all" or an integer'),
    ("run --cpus 1 --cpu-period 1000 image", 125, "Nano CPUs and CPU Period cannot both be set"),
    ("run --clock-offset day=1 image", 125, "there is no clock 'day'"),
    ("kill -s FOO x", 1, "invalid signal: FOO"),
    ("start -a x y", 1, "you cannot start and attach multiple containers at once"),
    ("update x", 1, "you must provide one or more flags when using this command"),
    ("ps --filter foo", 1, "invalid filter 'foo'"),
    ("--context other ps", 1, 'context "other": not found'),
    ("completion tcsh", 125, "no completion for the shell 'tcsh'"),
]


@pytest.mark.parametrize(("line", "code", "told"), CASES, ids=[case[0] for case in CASES])
def test_a_mistake_is_one_line_and_dockers_exit_code(line: str, code: int, told: str) -> None:
    result = run(*line.split())

    assert result.returncode == code
    assert result.stdout == ""
    first, *others = result.stderr.splitlines()
    assert first.startswith("wherry: ")
    assert told in first
    assert len(others) <= 1, result.stderr


def test_a_misspelled_command_and_option_are_guessed() -> None:
    assert "Did you mean 'wherry volume create'?" in run("volume", "cretae").stderr
    assert "Did you mean --detach?" in run("run", "--detahc", "image").stderr


def test_an_option_that_does_nothing_is_told_of(tmp_path: Path) -> None:
    result = run("create", "--pull", "never", "--cpu-rt-period", "5", "nope", root=tmp_path)

    assert "wherry: --cpu-rt-period does nothing: cgroup v2 has nothing like it" in result.stderr


def test_a_bare_group_shows_its_commands() -> None:
    result = run("volume")

    assert result.returncode == 0
    assert "Usage:  wherry volume COMMAND" in result.stderr
    assert re.search(r"^  create +Create a volume$", result.stderr, re.MULTILINE)


def test_the_version_is_one_line() -> None:
    assert re.fullmatch(r"wherry version \d+\.\d+\.\d+\S*\n", run("--version").stdout)


def test_debugging_shows_where_an_error_comes_from() -> None:
    result = run("-D", "run", "--restart", "foo", "image")

    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("wherry: invalid restart policy")
    assert result.returncode == 125


@pytest.mark.skipif(sys.platform != "linux", reason="writes to /dev/full")
def test_a_full_disk_behind_standard_output_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "wherry", "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=CORE,
            check=False,
        )

    assert result.returncode == 1
    assert result.stderr == "wherry: cannot write: No space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe of POSIX")
def test_a_reader_that_has_gone_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)

    result = subprocess.run(
        [sys.executable, "-m", "wherry", "--version"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CORE,
        check=False,
    )
    os.close(writing)

    assert (result.returncode, result.stderr) == (141, "")


@pytest.mark.skipif(sys.platform == "win32", reason="file descriptors of POSIX")
def test_closed_standard_streams_do_not_get_in_the_way() -> None:
    result = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m wherry --version <&- >&- 2>&-"],
        cwd=CORE,
        check=False,
    )

    assert result.returncode == 0
