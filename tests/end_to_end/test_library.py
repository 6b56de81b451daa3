"""`import wherry`: containers from a Python program, in the world of the test.

An engine is in this process, and so the containers are on this host.
"""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
from typing import TYPE_CHECKING

import pytest

from support.settings import on_linux
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.cli import Cli

pytestmark = [on_linux, pytest.mark.usefixtures("busybox_image")]


def python(wherry: Cli, program: str, files: Mapping[str, str] | None = None) -> str:
    """What a program that imports wherry prints; `files` are in its directory."""
    for name, content in (files or {}).items():
        path = os.path.join(wherry.directory, name)
        with open(path, "w") as file:
            file.write(content)
    argv = [wherry.account.interpreter, "-c", textwrap.dedent(program)]
    process = wherry.spawn(argv, stdin=subprocess.DEVNULL)
    output, errors = process.communicate(timeout=120)
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


def test_a_container_lives_as_long_as_its_block(wherry: Cli) -> None:
    said = python(
        wherry,
        """
        import wherry
        with wherry.Container("busybox", ["sleep", "1000"], network="none", name="box") as c:
            c.copy_in("note", "/tmp/note")
            print(c.name, c.is_running, c.exec(["cat", "/tmp/note"], check=True).text)
        """,
        files={"note": "hello"},
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


def test_what_takes_too_long_is_ended(wherry: Cli) -> None:
    said = python(
        wherry,
        """
        import wherry
        # Where the host is busy its container may not have begun by then.
        for seconds in (1, 10, 50):
            try:
                wherry.run("busybox", ["sh", "-c", "echo begun; sleep 1000"], network="none",
                           timeout=seconds)
            except wherry.TimedOut as error:
                print(str(error).replace(f"{seconds} s", "its time"))
                if error.result.text == "begun\\n":
                    print("with what it said")
                    break
        """,
    )

    told = set(said.splitlines())
    assert told == {"sh -c echo begun; sleep 1000 did not end within its time", "with what it said"}
    assert wherry("ps", "--all", "--quiet").stdout == ""


def test_an_interrupted_run_leaves_no_container(wherry: Cli) -> None:
    program = textwrap.dedent(
        """
        import wherry
        try:
            wherry.run("busybox", ["sleep", "1000"], network="none", name="box")
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    process = wherry.spawn([wherry.account.interpreter, "-c", program], stdin=subprocess.DEVNULL)
    wait_until(
        lambda: wherry("ps", "--quiet", "--filter", "name=box").stdout != "",
        Deadline(60, "the container to run"),
    )

    process.send_signal(signal.SIGINT)

    assert process.communicate(timeout=60)[0] == b"interrupted\n"
    assert wherry("ps", "--all", "--quiet").stdout == ""


def test_threads_run_containers_side_by_side(wherry: Cli) -> None:
    said = python(
        wherry,
        """
        import warnings
        warnings.simplefilter("error")
        import wherry
        from concurrent.futures import ThreadPoolExecutor

        def greet(name):
            return wherry.run("busybox", ["cat"], input=name, network="none", check=True).text

        with ThreadPoolExecutor(4) as pool:
            print(sorted(pool.map(greet, "abcdef")))
        """,
    )

    assert said == "['a', 'b', 'c', 'd', 'e', 'f']\n"


def test_errors_are_the_same_in_a_thread(wherry: Cli) -> None:
    said = python(
        wherry,
        """
        import asyncio
        import wherry
        from wherry.errors import CommandNotFound

        async def main():
            with wherry.Container("busybox", ["sleep", "1000"], network="none") as box:
                try:
                    await asyncio.to_thread(wherry.run, "busybox", ["nonesuch"], network="none")
                except CommandNotFound as error:
                    print("not found:", "nonesuch" in error.message)
                result = await asyncio.to_thread(box.exec, ["cat"], input="typed", check=True)
                print(result.text, await asyncio.to_thread(lambda: box.is_running))

        asyncio.run(main())
        """,
    )

    assert said == "not found: True\ntyped True\n"
    assert wherry("ps", "--all", "--quiet").stdout == ""


def test_options_take_what_python_has(wherry: Cli, host_dir: str) -> None:
    said = python(
        wherry,
        f"""
        import wherry
        result = wherry.run(
            "busybox", ["sh", "-c", "echo $ONE $TWO; cat /src/file; touch /file"],
            env={{"ONE": 1, "TWO": "two words"}}, volume=["{host_dir}:/src:ro"],
            read_only=True, network="none", workdir=None,
        )
        print(result.text.splitlines(), result.returncode != 0)
        """,
        files={"file": "of the host"},
    )

    assert said == "['1 two words', 'of the host'] True\n"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("wherry.run('busybox', 'echo hello')", "the command is a list of words"),
        ("wherry.run('busybox', detach=True)", "detach and explain are for the command line"),
        ("wherry.run('busybox', timeout=0)", "invalid timeout 0: it takes a second at least"),
        ("wherry.run('busybox', network='none', user='nobody1')", "nobody1"),
        ("wherry.Container('busybox', memory='lots').__enter__()", "lots"),
        ("wherry.pull('localhost:1/nothing')", "localhost:1"),
    ],
)
def test_what_cannot_be_done_raises_one_error(wherry: Cli, call: str, message: str) -> None:
    said = python(
        wherry,
        f"""
        import wherry
        try:
            {call}
        except wherry.WherryError as error:
            print(error.message)
        """,
    )

    assert message in said
    assert said.count("\n") == 1


def test_a_container_that_is_gone_already_is_no_error(wherry: Cli) -> None:
    said = python(
        wherry,
        """
        import wherry
        with wherry.Container("busybox", ["true"], network="none", rm=True) as box:
            box.wait()
        with wherry.Container("busybox", ["sh", "-c", "echo out; echo err >&2"],
                              network="none") as box:
            print(box.wait(), sorted(box.logs()))
        """,
    )

    assert said == "0 ['err\\n', 'out\\n']\n"
