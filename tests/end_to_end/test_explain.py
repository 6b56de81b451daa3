"""`run --explain`: what a container is made of, true to what is made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from support.settings import OFFLINE, of_root

if TYPE_CHECKING:
    from support.cli import Cli

KINDS = {"network": "net", "mount": "mnt"}
EIGHT = ("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts")


def test_namespaces_have_the_numbers_that_the_container_sees(
    wherry: Cli, busybox_image: str
) -> None:
    script = "for n in /proc/self/ns/*; do echo $(basename $n) $(readlink $n); done"

    result = wherry("run", "--rm", OFFLINE, "--explain=json", busybox_image, "sh", "-c", script)

    inside = dict(line.split(" ", 1) for line in result.lines)
    explained = {entry["type"]: entry for entry in json.loads(result.stderr)["namespaces"]}
    assert sorted(explained) == sorted(EIGHT)
    for kind in EIGHT:
        name = KINDS.get(kind, kind)
        assert inside[name] == f"{name}:[{explained[kind]['container']}]"
        assert explained[kind]["container"] != explained[kind]["host"]


def test_text_is_on_stderr_and_the_output_stays_clean(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", "--rm", OFFLINE, "--explain", busybox_image, "echo", "hi")

    assert result.stdout == "hi\n"
    for heading in ("namespaces:", "ids:", "mounts, in order:", "capabilities:", "system calls:"):
        assert heading in result.stderr


@of_root
def test_it_says_what_took_the_user_namespace_away(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", "--rm", OFFLINE, "--explain", "--pid=host", busybox_image, "true")

    assert "no user namespace of its own, because of --pid host" in result.stderr


def test_clock_offset_moves_uptime_and_never_the_date(wherry: Cli, busybox_image: str) -> None:
    script = "cut -d. -f1 /proc/uptime; date +%s"

    plain = wherry("run", "--rm", OFFLINE, busybox_image, "sh", "-c", script).lines
    moved = wherry(
        "run", "--rm", OFFLINE, "--clock-offset", "boottime=864000", busybox_image,
        "sh", "-c", script,
    ).lines  # fmt: skip

    assert 864000 <= int(moved[0]) - int(plain[0]) < 864600
    assert 0 <= int(moved[1]) - int(plain[1]) < 600
