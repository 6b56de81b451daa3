"""Files that a command's caller has open, and its variables, are not the container's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.cli import Result
from support.settings import OFFLINE
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.cli import Cli

_LIST = "exec 9> /tmp/list; ls /proc/self/fd >&9; env >> /tmp/list"


def _leaking(wherry: Cli, *argv: str) -> Result:
    """A command whose caller has left it a directory and a file, and a secret."""
    words = ["sh", "-c", 'exec 7</ 8</etc/passwd; exec "$@"', "sh", *wherry.account.command, *argv]
    process = wherry.spawn(words, env={"PASSWORD": "hunter2"})
    output, errors = process.communicate(timeout=60)
    return Result(argv=argv, returncode=process.returncode, output=output, errors=errors)


def _expect_nothing_of_the_caller(wherry: Cli, container: str, path: str) -> None:
    """In the listing at `path`, once it is whole; one that is made anew is not for a moment."""
    read: list[str] = []

    def is_listed() -> bool:
        read.append(wherry("exec", container, "cat", path, check=False).stdout)
        return "PATH=" in read[-1]

    wait_until(is_listed, Deadline(60, f"the listing {path}"))
    text = read[-1]
    descriptors = [word for word in text.split() if word.isdigit()]
    # 3 is the listing's own.
    assert set(descriptors) <= {"0", "1", "2", "3", "9"}
    assert "hunter2" not in text
    assert "WHERRY_ROOT" not in text


@pytest.fixture
def container(wherry: Cli, busybox_image: str) -> Iterator[str]:
    checks = ("--health-interval", "1s", "--health-cmd", _LIST.replace("/tmp/list", "/checked"))
    _leaking(
        wherry, "run", OFFLINE, "-d", "--name", "box", "--tmpfs", "/tmp", *checks,
        busybox_image, "sh", "-c", f"{_LIST}; sleep 1000",
    )  # fmt: skip
    yield "box"
    wherry("rm", "-f", "box")


def test_program_of_a_container_gets_nothing(wherry: Cli, container: str) -> None:
    _expect_nothing_of_the_caller(wherry, container, "/tmp/list")


@pytest.mark.parametrize("options", [(), ("-i",), ("-t",), ("-d",), ("--privileged",)])
def test_process_that_joins_gets_nothing(
    wherry: Cli, container: str, options: tuple[str, ...]
) -> None:
    script = _LIST.replace("/tmp/list", "/joined")
    result = _leaking(wherry, "exec", *options, container, "sh", "-c", script)

    assert result.returncode == 0
    _expect_nothing_of_the_caller(wherry, container, "/joined")


def test_health_check_gets_nothing(wherry: Cli, container: str) -> None:
    _expect_nothing_of_the_caller(wherry, container, "/checked")
