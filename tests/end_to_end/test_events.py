"""`events`: what happens to containers and volumes is told in docker's words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from support.settings import OFFLINE, of_root
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.cli import Cli
    from support.terminal import Terminal


def _events(wherry: Cli, *filters: str) -> list[dict[str, Any]]:
    asked = [word for text in filters for word in ("--filter", text)]
    told = wherry("events", "--since", "1h", "--until", "0s", "--format", "json", *asked)
    return [json.loads(line) for line in told.lines]


def _actions(wherry: Cli, *filters: str) -> list[str]:
    return [event["Action"] for event in _events(wherry, *filters)]


def test_container_in_the_foreground_is_attached_to(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "--rm", "--name", "box", busybox_image, "true")

    assert _actions(wherry, "container=box") == ["create", "attach", "start", "die", "destroy"]


def test_container_in_the_background_is_not(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "box", busybox_image, "sleep", "1000")
    wherry("rm", "-f", "box")

    assert "attach" not in _actions(wherry, "container=box")


def test_exec_is_told_from_its_beginning_to_its_end(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "box", busybox_image, "sleep", "1000")

    wherry("exec", "box", "sh", "-c", "exit 3", check=False)

    create, start, end = _events(wherry, "container=box")[-3:]
    assert create["Action"] == "exec_create: sh -c exit 3"
    assert start["Action"] == "exec_start: sh -c exit 3"
    assert end["Action"] == "exec_die"
    assert end["Actor"]["Attributes"]["exitCode"] == "3"
    assert len({each["Actor"]["Attributes"]["execID"] for each in (create, start, end)}) == 1


def test_terminal_is_resized_and_left(
    wherry: Cli, busybox_image: str, terminal: Callable[..., Terminal]
) -> None:
    session = terminal(
        "run", OFFLINE, "-it", "--name", "box", busybox_image,
        "sh", "-c", "echo ready; exec sleep 1000", rows=31, columns=77,
    )  # fmt: skip
    session.expect("ready")
    wait_until(lambda: "resize" in _actions(wherry), Deadline(60, "the terminal to have a size"))
    session.send("\x10\x11")
    session.wait()

    events = _events(wherry, "container=box")
    assert [event["Action"] for event in events] == [
        "create", "attach", "start", "resize", "detach",
    ]  # fmt: skip
    size = events[3]["Actor"]["Attributes"]
    assert (size["height"], size["width"]) == ("31", "77")


def test_volume_is_told_of_from_its_making_to_its_end(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "--rm", "-v", "kept:/data:ro", "--name", "box", busybox_image, "true")
    wherry("volume", "rm", "kept")

    events = _events(wherry, "type=volume")

    assert [event["Action"] for event in events] == ["create", "mount", "unmount", "destroy"]
    assert {event["Actor"]["ID"] for event in events} == {"kept"}
    mounted = events[1]["Actor"]["Attributes"]
    assert (mounted["destination"], mounted["read/write"]) == ("/data", "false")
    assert mounted["container"] == events[2]["Actor"]["Attributes"]["container"]
    assert _actions(wherry)[-5:-1] == ["start", "die", "unmount", "destroy"]


@of_root
def test_what_reads_and_writes_a_container_is_told(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "box", busybox_image, "sleep", "1000")
    wherry("top", "box")
    wherry("update", "--restart", "always", "box")
    archive = wherry("cp", "box:/etc/passwd", "-").output
    wherry("cp", "-", "box:/tmp", input=archive)
    wherry("export", "box")

    assert _actions(wherry, "container=box")[2:] == [
        "top", "update", "archive-path", "extract-to-dir", "export",
    ]  # fmt: skip
