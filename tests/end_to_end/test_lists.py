"""What `ps`, `top`, `stats` and `inspect` show, as scripts read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.settings import OFFLINE

if TYPE_CHECKING:
    from support.cli import Cli


def test_arguments_with_spaces_are_quoted(wherry: Cli, busybox_image: str) -> None:
    wherry("create", OFFLINE, "--name", "box", busybox_image, "sh", "-c", "echo one; echo two")

    shown = wherry("ps", "-a", "--no-trunc", "--format", "{{.Command}}").stdout

    assert shown == "\"sh -c 'echo one; echo two'\"\n"


def test_template_that_asks_for_the_size_gets_it(wherry: Cli, busybox_image: str) -> None:
    script = "head -c 5000 /dev/zero > /file"
    wherry("run", OFFLINE, "--name", "box", busybox_image, "sh", "-c", script)

    assert "5kB (virtual " in wherry("ps", "-a", "--format", "{{.Size}}").stdout


def test_top_shows_what_ps_is_asked_for(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "box", busybox_image, "sleep", "1000")

    few, many = (wherry("top", "box", *words).lines for words in (("-eo", "pid,args"), ("aux",)))

    assert few[0].split() == ["PID", "COMMAND"]
    assert few[1].endswith("sleep 1000")
    assert many[0].split()[:4] == ["USER", "PID", "%CPU", "%MEM"]
    assert many[1].endswith("sleep 1000")


def test_ps_that_refuses_its_options_says_so_on_one_line(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--name", "box", busybox_image, "sleep", "1000")

    result = wherry("top", "box", "--nonsense", check=False)

    assert result.returncode == 1
    assert result.stderr == "wherry: ps: error: unknown gnu long option\n"


def test_stats_show_the_name_that_was_asked_for(wherry: Cli, busybox_image: str) -> None:
    identity = wherry("run", OFFLINE, "-d", "--name", "box", busybox_image, "sleep", "1000")

    template = ("stats", "--no-stream", "--format", "{{.Container}} {{.Name}}")

    assert wherry(*template, "box").stdout == "box box\n"
    assert wherry(*template).stdout == f"{identity.stdout[:12]} box\n"


def test_unknown_type_of_object_is_told(wherry: Cli) -> None:
    result = wherry("inspect", "--type", "spaceship", "box", check=False)

    assert result.returncode == 1
    assert (
        'unknown type: "spaceship": must be one of container, image, network, volume'
        in result.stderr
    )


def test_primary_group_is_among_the_groups(wherry: Cli, busybox_image: str) -> None:
    script = "grep Groups: /proc/self/status"

    result = wherry("run", OFFLINE, "--rm", "--user", "1:7", busybox_image, "sh", "-c", script)

    assert result.stdout.split() == ["Groups:", "7"]
