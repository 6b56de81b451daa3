"""A caller with little to give: limits of its own (ulimit), and words without an end."""

from __future__ import annotations

import pytest

from support.cli import Cli, Result
from support.settings import OFFLINE, as_root


def _limited(wherry: Cli, limit: str, *argv: str) -> Result:
    """`wherry ARGV…` below a `ulimit`."""
    script = f'ulimit {limit}; exec "$@"'
    words = ["sh", "-c", script, "sh", *wherry.account.command, *argv]
    process = wherry.spawn(words)
    output, errors = process.communicate(timeout=60)
    return Result(argv=argv, returncode=process.returncode, output=output, errors=errors)


@as_root
@pytest.mark.parametrize("descriptors", [5, 6, 7, 8, 10, 12, 14, 16, 18, 20])
def test_too_few_descriptors_are_told_of_and_leave_nothing(
    wherry: Cli, wherry_root: str, busybox_image: str, descriptors: int
) -> None:
    argv = ("run", OFFLINE, "--rm", busybox_image, "echo", "ran")

    result = _limited(wherry, f"-n {descriptors}", *argv)

    if result.returncode:
        assert result.stderr.startswith("wherry: ")
        assert "Error" not in result.stderr
    else:
        assert result.stdout == "ran\n"
    assert wherry("ps", "-aq").lines == []


def test_container_survives_a_limit_to_its_log(wherry: Cli, busybox_image: str) -> None:
    script = "head -c 300000 /dev/zero | tr '\\0' x; echo; echo done; exit 5"
    argv = ("run", OFFLINE, "--name", "box", busybox_image, "sh", "-c", script)

    result = _limited(wherry, "-f 128", *argv)

    assert result.returncode == 5
    assert result.output.count(b"x") == 300_000
    assert wherry("inspect", "-f", "{{.State.ExitCode}}", "box").stdout == "5\n"


@pytest.mark.parametrize("word", ["x" * 120_000, "\x01" * 120_000, "/" + "y/" * 60_000])
def test_long_command_that_is_not_there_is_one_complaint(
    wherry: Cli, busybox_image: str, word: str
) -> None:
    result = wherry("run", OFFLINE, "--rm", busybox_image, word, check=False)

    assert result.returncode == 127
    assert result.stderr.startswith("wherry: ")
    assert "executable file not found" in result.stderr or "no such file" in result.stderr
    assert len(result.stderr) < 40_000
    assert wherry("ps", "-aq").lines == []
