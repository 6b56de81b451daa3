"""A container from `create` to `rm`, and what `ps` and `inspect` say of it meanwhile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE, of_root

if TYPE_CHECKING:
    from support.cli import Cli


def test_container_is_gone_after_run_rm(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "--rm", busybox_image, "true")

    assert wherry("ps", "-a", "-q").stdout == ""


def test_container_stays_without_rm(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "--name", "stays", busybox_image, "sh", "-c", "exit 3", check=False)

    result = wherry("ps", "-a", "--format", "{{.Names}} {{.Image}} {{.Status}}")

    assert result.stdout.startswith("stays busybox Exited (3) ")


def test_states_follow_each_other(wherry: Cli, busybox_image: str) -> None:
    def state() -> str:
        return wherry("inspect", "-f", "{{.State.Status}}", "box").stdout.strip()

    wherry("create", OFFLINE, "--name", "box", busybox_image, "sleep", "1000")
    states = [state()]
    for command in (("start",), ("stop", "-t", "0"), ("restart", "-t", "0"), ("kill",)):
        wherry(*command, "box")
        states.append(state())

    assert states[:4] == ["created", "running", "exited", "running"]
    wherry("wait", "box")
    assert state() == "exited"


def test_files_and_id_survive_a_restart(wherry: Cli, busybox_image: str) -> None:
    script = "[ -e /mark ] && echo again || { touch /mark; echo first; }"
    container = wherry("create", OFFLINE, "--name", "box", busybox_image, "sh", "-c", script).stdout

    first = wherry("start", "-a", "box").stdout
    again = wherry("start", "-a", "box").stdout

    assert (first, again) == ("first\n", "again\n")
    assert wherry("inspect", "-f", "{{.Id}}", "box").stdout == container
    assert wherry("logs", "box").stdout == "first\nagain\n"


def test_stop_gives_the_command_time_to_end_well(wherry: Cli, busybox_image: str) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    wherry("run", OFFLINE, "-d", "--name", "polite", busybox_image, "sh", "-c", script)
    follower = wherry.start("logs", "-f", "polite")
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"ready\n"

    wherry("stop", "-t", "60", "polite")

    assert follower.communicate(timeout=60)[0] == b"bye\n"
    assert wherry("inspect", "-f", "{{.State.ExitCode}}", "polite").stdout == "5\n"


def test_name_can_be_used_once(wherry: Cli, busybox_image: str) -> None:
    holder = wherry("create", OFFLINE, "--name", "taken", busybox_image, "true").stdout.strip()

    result = wherry("run", OFFLINE, "--name", "taken", busybox_image, "true", check=False)

    assert result.returncode == 125
    assert '"/taken" is already in use by container' in result.stderr
    assert holder[:12] in result.stderr
    assert len(wherry("ps", "-a", "-q").lines) == 1


def test_container_is_found_by_name_id_and_prefix(wherry: Cli, busybox_image: str) -> None:
    container = wherry("create", OFFLINE, "--name", "box", busybox_image, "true").stdout.strip()

    for word in ("box", container, container[:12], container[:4]):
        assert wherry("inspect", "-f", "{{.Id}}", word).stdout.strip() == container


def test_running_container_is_removed_by_force_only(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "box", busybox_image, "sleep", "1000")

    refused = wherry("rm", "box", check=False)
    forced = wherry("rm", "-f", "box")

    assert refused.returncode == 1
    assert "is running" in refused.stderr
    assert forced.stdout == "box\n"
    assert wherry("ps", "-aq").stdout == ""


def test_ps_shows_running_containers(wherry: Cli, busybox_image: str) -> None:
    container = wherry("run", OFFLINE, "-d", "--name", "up", busybox_image, "sleep", "1000").stdout
    wherry("create", OFFLINE, "--name", "not-up", busybox_image, "true")

    header, line = wherry("ps").lines

    assert header.split() == [
        "CONTAINER",
        "ID",
        "IMAGE",
        "COMMAND",
        "CREATED",
        "STATUS",
        "PORTS",
        "NAMES",
    ]
    assert line.startswith(container[:12])
    assert '"sleep 1000"' in line
    assert " Up " in line
    assert line.endswith("up")


def test_ps_filters(wherry: Cli, busybox_image: str) -> None:
    wherry("create", OFFLINE, "--name", "red", "--label", "colour=red", busybox_image, "true")
    wherry("create", OFFLINE, "--name", "blue", "--label", "colour=blue", busybox_image, "true")

    def names(*filters: str) -> list[str]:
        flags = [word for one in filters for word in ("--filter", one)]
        return wherry("ps", "-a", "--format", "{{.Names}}", *flags).lines

    assert names("label=colour=red") == ["red"]
    assert sorted(names("label=colour")) == ["blue", "red"]
    assert names("name=blu") == ["blue"]
    assert names("status=running") == []


def test_inspect_prints_what_docker_prints(wherry: Cli, busybox_image: str) -> None:
    argv = ("-e", "A=1", "-w", "/tmp", "--label", "k=v", "--name", "box", "--hostname", "h")
    container = wherry("create", OFFLINE, *argv, busybox_image, "echo", "hi").stdout.strip()

    (found,) = json.loads(wherry("inspect", "box").stdout)

    assert found["Id"] == container
    assert found["Name"] == "/box"
    assert (found["Path"], found["Args"]) == ("echo", ["hi"])
    assert found["State"]["Status"] == "created"
    assert found["Image"].startswith("sha256:")
    assert found["Config"]["Hostname"] == "h"
    assert "A=1" in found["Config"]["Env"]
    assert found["Config"]["Labels"] == {"k": "v"}
    assert found["Config"]["WorkingDir"] == "/tmp"
    assert found["HostConfig"]["RestartPolicy"]["Name"] == "no"


def test_rename_keeps_the_container(wherry: Cli, busybox_image: str) -> None:
    container = wherry("create", OFFLINE, "--name", "old", busybox_image, "true").stdout

    wherry("rename", "old", "new")

    assert wherry("inspect", "-f", "{{.Id}}", "new").stdout == container
    assert wherry("inspect", "old", check=False).returncode == 1


def test_wait_prints_the_exit_code(wherry: Cli, busybox_image: str) -> None:
    wherry("create", OFFLINE, "--name", "box", busybox_image, "sh", "-c", "exit 4")
    wherry("start", "box")

    assert wherry("wait", "box").stdout == "4\n"
    assert wherry("wait", "box").stdout == "4\n"


@of_root  # others need a control group that their session was given
def test_paused_container_says_so(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "box", busybox_image, "sleep", "1000")

    wherry("pause", "box")
    paused = wherry("ps", "--format", "{{.Status}}").stdout
    wherry("unpause", "box")

    assert paused.strip().endswith("(Paused)")
    assert wherry("inspect", "-f", "{{.State.Status}}", "box").stdout == "running\n"


@pytest.mark.parametrize("flag", ["-aq", "-q"])
def test_ps_without_containers_prints_nothing(wherry: Cli, flag: str) -> None:
    assert wherry("ps", flag).stdout == ""
