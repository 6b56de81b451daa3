"""`import wherry`: containers from a Python program, in the world of the test."""

from __future__ import annotations

import os
import subprocess
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.cli import Cli

pytestmark = [pytest.mark.linux, pytest.mark.usefixtures("busybox_image")]


def python(wherry: Cli, program: str) -> str:
    """What a program that imports wherry prints."""
    argv = [wherry.account.interpreter, "-c", textwrap.dedent(program)]
    process = wherry.spawn(argv, stdin=subprocess.DEVNULL)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()
    return output.decode()


def test_run_gives_output_and_exit_code(wherry: Cli) -> None:
    said = python(
        wherry,
        """
        import wherry
        r = wherry.run("busybox", ["sh", "-c", "cat; echo no >&2; exit 3"], input=b"in",
                       network="none")
        print(r.returncode, r.stdout, r.stderr)
        """,
    )

    assert said == "3 b'in' b'no\\n'\n"


def test_a_failure_with_check_is_an_exception_that_says_why(wherry: Cli) -> None:
    said = python(
        wherry,
        """
        import wherry
        try:
            wherry.run("busybox", ["sh", "-c", "echo gone wrong >&2; exit 4"], check=True,
                       network="none")
        except wherry.CommandFailed as error:
            print(error.result.returncode, error)
        """,
    )

    assert said.startswith("4 ")
    assert "gone wrong" in said


def test_a_container_lives_as_long_as_its_block(wherry: Cli, host_dir: str) -> None:
    with open(os.path.join(host_dir, "note"), "w") as file:
        file.write("hello")
    os.chmod(os.path.join(host_dir, "note"), 0o644)

    said = python(
        wherry,
        """
        import wherry
        with wherry.Container("busybox", ["sleep", "1000"], network="none", name="box") as c:
            c.copy_in("note", "/tmp/note")
            print(c.name, c.is_running, c.exec(["cat", "/tmp/note"], check=True).text)
        """,
    )

    assert said == "box True hello\n"
    assert wherry("ps", "--all", "--quiet").stdout == ""


def test_an_unknown_option_is_named(wherry: Cli) -> None:
    said = python(
        wherry,
        """
        import wherry
        try:
            wherry.run("busybox", colour="red")
        except wherry.WherryError as error:
            print(error.message)
        """,
    )

    assert said == "unknown option colour\n"
