"""Many commands at the same time, on many containers and on one."""

from __future__ import annotations

import resource
import subprocess
from typing import TYPE_CHECKING

from support.settings import as_root

if TYPE_CHECKING:
    from support.cli import Cli, Result
    from support.outside import Outside


def _together(wherry: Cli, *commands: tuple[str, ...]) -> list[Result]:
    """Start all commands, then wait for all of them."""
    from support.cli import Result

    processes = [wherry.start(*argv, stdin=subprocess.DEVNULL) for argv in commands]
    results = []
    for argv, process in zip(commands, processes, strict=True):
        output, errors = process.communicate(timeout=120)
        results.append(
            Result(argv=argv, returncode=process.returncode, output=output, errors=errors)
        )
    return results


def _box(name: str) -> tuple[str, ...]:
    return ("run", "-d", "--network", "none", "--name", name, "busybox", "sleep", "1000")


@as_root
def test_fifty_containers_started_by_ten_at_a_time_all_run(wherry: Cli, busybox_image: str) -> None:
    for turn in range(5):
        results = _together(wherry, *(_box(f"box{turn}-{number}") for number in range(10)))
        assert [result.returncode for result in results] == [0] * 10, results

    before = _seconds_of_children()
    listed = wherry("ps", "-q").lines
    took = _seconds_of_children() - before

    assert len(listed) == 50
    assert took < 3  # `make bench` measures; this is only against what grows with each one
    wherry("rm", "-f", *wherry("ps", "-aq").lines)


def _seconds_of_children() -> float:
    """What the processes that we have waited for have computed: others' load is not in it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_one_of_ten_gets_a_name(wherry: Cli, busybox_image: str) -> None:
    results = _together(wherry, *[_box("wanted")] * 10)

    won = [result for result in results if result.returncode == 0]
    lost = [result for result in results if result.returncode != 0]
    assert len(won) == 1
    assert {result.returncode for result in lost} == {125}
    for result in lost:
        assert 'Conflict. The container name "/wanted" is already in use by' in result.stderr
    assert wherry("ps", "-aq", "--no-trunc").lines == [won[0].stdout.strip()]


def test_start_stop_and_remove_race_on_one_container(wherry: Cli, busybox_image: str) -> None:
    for _ in range(4):
        wherry("create", "--network", "none", "--name", "box", "busybox", "sleep", "1000")

        results = _together(
            wherry,
            ("start", "box"),
            ("start", "box"),
            ("stop", "-t", "0", "box"),
            ("restart", "-t", "0", "box"),
            ("rm", "-f", "box"),
            ("rm", "-f", "box"),
        )

        for result in results:
            assert "Traceback" not in result.stderr
            assert "internal error" not in result.stderr
            assert "monitor" not in result.stderr
        wherry("rm", "-f", "box")
        assert wherry("ps", "-aq").lines == []


def test_several_start_one_container_once(wherry: Cli, busybox_image: str) -> None:
    wherry("create", "--network", "none", "--name", "box", "busybox", "sleep", "1000")

    results = _together(wherry, *[("start", "box")] * 6)

    assert {(result.returncode, result.stderr) for result in results} == {(0, "")}
    assert wherry("inspect", "-f", "{{.State.Status}}", "box").stdout == "running\n"


def test_several_stop_one_container(wherry: Cli, busybox_image: str) -> None:
    wherry(*_box("box"))

    results = _together(wherry, *[("stop", "-t", "0", "box")] * 6)

    assert {(result.returncode, result.stderr) for result in results} == {(0, "")}
    assert wherry("inspect", "-f", "{{.State.Status}}", "box").stdout == "exited\n"


def test_a_hundred_commands_run_in_one_container(wherry: Cli, busybox_image: str) -> None:
    wherry(*_box("box"))

    results = _together(wherry, *(("exec", "box", "echo", f"{number}") for number in range(100)))

    assert [result.stdout for result in results] == [f"{number}\n" for number in range(100)]


def test_ten_clients_see_the_same(wherry: Cli, outside: Outside, busybox_image: str) -> None:
    script = "read go; for i in 1 2 3 4 5 6 7 8 9; do echo $i; done"
    argv = ("--network", "none", "--name", "box", "-i", "-d", "busybox", "sh", "-c", script)
    wherry("run", *argv)
    watchers = [wherry.start("attach", "--no-stdin", "box") for _ in range(9)]
    # An attached client is there once it is asked for: what it types arrives after it.
    outside.wait_for_clients(len(watchers))
    typist = wherry("attach", "box", input="go\n", check=False)

    outputs = [watcher.communicate(timeout=60)[0] for watcher in watchers]

    expected = "".join(f"{number}\n" for number in range(1, 10))
    assert typist.stdout == expected
    assert outputs == [expected.encode()] * 9
