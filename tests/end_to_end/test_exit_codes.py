"""What `wherry run` and its kin end with, as docker documents it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE

if TYPE_CHECKING:
    from support.cli import Cli


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_run_ends_with_the_code_of_the_command(wherry: Cli, busybox_image: str, code: int) -> None:
    result = wherry("run", OFFLINE, "--rm", busybox_image, "sh", "-c", f"exit {code}", check=False)

    assert result.returncode == code


@pytest.mark.parametrize(("signal", "code"), [("KILL", 137), ("TERM", 143), ("ABRT", 134)])
def test_run_ends_with_128_and_the_signal_that_ended_the_command(
    wherry: Cli, busybox_image: str, signal: str, code: int
) -> None:
    # The first process ignores signals from within: a child of it does not.
    script = f"sh -c 'kill -{signal} $$'; exit $?"

    result = wherry("run", OFFLINE, "--rm", busybox_image, "sh", "-c", script, check=False)

    assert result.returncode == code


def test_killed_container_ends_with_137(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "victim", busybox_image, "sleep", "1000")

    wherry("kill", "victim")

    assert wherry("wait", "victim").stdout == "137\n"


def test_command_that_does_not_exist_is_127(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", OFFLINE, "--rm", busybox_image, "no-such-command", check=False)

    assert result.returncode == 127
    assert "no-such-command" in result.stderr
    assert "executable file not found in $PATH" in result.stderr


def test_path_that_does_not_exist_is_127(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", OFFLINE, "--rm", busybox_image, "/no/such/file", check=False)

    assert result.returncode == 127
    assert "no such file or directory" in result.stderr


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc"])
def test_file_that_cannot_be_executed_is_126(wherry: Cli, busybox_image: str, path: str) -> None:
    result = wherry("run", OFFLINE, "--rm", busybox_image, path, check=False)

    assert result.returncode == 126
    assert path in result.stderr


@pytest.mark.parametrize(
    "argv",
    [
        ("--no-such-flag", "busybox", "true"),
        ("--memory", "much", "busybox", "true"),
        ("--name", "no/slashes", "busybox", "true"),
        ("-v", "no-colon:relative", "busybox", "true"),
        ("Upper", "true"),
    ],
    ids=lambda argv: argv[0],
)
def test_mistake_in_the_command_line_is_125(
    wherry: Cli, busybox_image: str, argv: tuple[str, ...]
) -> None:
    result = wherry("run", "--rm", *argv, check=False)

    assert result.returncode == 125
    assert result.stdout == ""
    assert result.stderr.startswith("wherry: ")
    assert "Traceback" not in result.stderr


def test_exec_ends_with_the_code_of_its_command(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "box", busybox_image, "sleep", "1000")

    assert wherry("exec", "box", "sh", "-c", "exit 7", check=False).returncode == 7
    assert wherry("exec", "box", "no-such-command", check=False).returncode == 127
    assert wherry("exec", "box", "/etc/passwd", check=False).returncode == 126


def test_exec_that_cannot_begin_has_dockers_code(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "box", busybox_image, "sleep", "1000")

    nobody = wherry("exec", "--user", "nosuch", "box", "true", check=False)
    nowhere = wherry("exec", "--workdir", "/nosuch", "box", "true", check=False)
    no_directory = wherry("exec", "--workdir", "/etc/passwd", "box", "true", check=False)

    assert (nobody.returncode, nowhere.returncode, no_directory.returncode) == (126, 127, 126)
    assert "unable to find user nosuch" in nobody.stderr
    assert "no such file or directory" in nowhere.stderr


def test_exec_in_the_background_tells_what_cannot_begin(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "box", busybox_image, "sleep", "1000")

    nothing = wherry("exec", "-d", "box", "no-such-command", check=False)
    nobody = wherry("exec", "-d", "--user", "nosuch", "box", "true", check=False)

    assert (nothing.returncode, nobody.returncode) == (127, 126)
    assert "executable file not found in $PATH" in nothing.stderr


def test_device_that_is_not_there_is_found_out_at_the_start(
    wherry: Cli, busybox_image: str
) -> None:
    made = wherry("create", "--name", "box", "--device", "/dev/nosuch", busybox_image, "true")
    started = wherry("start", "box", check=False)
    run = wherry("run", "--rm", "--device", "/dev/nosuch", busybox_image, "true", check=False)

    assert made.returncode == 0
    assert (started.returncode, run.returncode) == (1, 125)
    for result in (started, run):
        assert 'adding custom device "/dev/nosuch": no such file or directory' in result.stderr


def test_exec_in_a_container_that_does_not_run_is_1(wherry: Cli, busybox_image: str) -> None:
    wherry("create", OFFLINE, "--name", "box", busybox_image, "true")

    result = wherry("exec", "box", "true", check=False)

    assert result.returncode == 1
    assert "is not running" in result.stderr


@pytest.mark.parametrize("command", ["start", "stop", "rm", "inspect", "logs", "kill", "wait"])
def test_container_that_does_not_exist_is_1(wherry: Cli, command: str) -> None:
    result = wherry(command, "nobody", check=False)

    assert result.returncode == 1
    assert "nobody" in result.stderr
    assert "no such" in result.stderr.lower()
