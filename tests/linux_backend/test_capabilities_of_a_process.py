"""A process ends up with the capability sets that were asked for."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from wherry.container.capabilities import NAMES

if sys.platform != "linux":
    pytest.skip("wherry_linux is for Linux", allow_module_level=True)

from wherry_linux import capabilities
from wherry_linux.constants import PR_SET_KEEPCAPS
from wherry_linux.syscalls import prctl

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.linux

WANTED = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_RAW"]


def in_child(function: Callable[[], Any]) -> Any:
    """What `function` returns, called in a process that may be spoiled."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writer, json.dumps(function()).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as answer:
        content = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(content)


def sets_of_this_process() -> dict[str, list[str]]:
    """The sets as the kernel shows them, by its own path."""
    with open("/proc/thread-self/status") as file:
        lines = (line.split() for line in file if line.startswith("Cap"))
        return {key: capabilities.names_of(int(bits, 16)) for key, bits in lines}


def set_up(sets: dict[str, list[str]], uid: int) -> Callable[[], dict[str, list[str]]]:
    def in_order() -> dict[str, list[str]]:
        capabilities.limit_bounding(sets)  # type: ignore[arg-type]
        prctl(PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        capabilities.apply(sets)  # type: ignore[arg-type]
        return sets_of_this_process()

    return in_order


@pytest.mark.parametrize("uid", [0, 1234])
def test_sets_survive_the_change_of_user(uid: int) -> None:
    sets = {"bounding": WANTED, "permitted": WANTED, "effective": WANTED[:2]}

    result = in_child(set_up(sets, uid))

    assert result == {
        "CapInh:": [],
        "CapPrm:": WANTED,
        "CapEff:": WANTED[:2],
        "CapBnd:": WANTED,
        "CapAmb:": [],
    }


def test_ambient_capabilities_reach_an_ordinary_program_of_an_ordinary_user() -> None:
    sets = {
        key: ["CAP_KILL"]
        for key in ("bounding", "permitted", "effective", "inheritable", "ambient")
    }

    def execute() -> str:
        set_up(sets, 1234)()
        with os.popen("cat /proc/self/status") as output:
            return output.read()

    status = in_child(execute)

    bit = f"{1 << NAMES.index('CAP_KILL'):016x}"
    assert f"CapEff:\t{bit}" in status
    assert f"CapAmb:\t{bit}" in status


def test_no_sets_at_all_leave_nothing() -> None:
    assert set().union(*in_child(set_up({}, 0)).values()) == set()


def test_an_unknown_name_is_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    assert capabilities.mask(["CAP_KILL", "CAP_FLYING"]) == 1 << 5
    assert "unknown capability CAP_FLYING" in capfd.readouterr().err


def test_what_there_is_not_to_give_is_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    def twice() -> dict[str, list[str]]:
        set_up({"bounding": WANTED, "permitted": WANTED, "effective": WANTED}, 0)()
        more = [*WANTED, "CAP_SYS_ADMIN"]
        capabilities.apply({"permitted": more, "effective": more})
        return sets_of_this_process()

    assert in_child(twice)["CapPrm:"] == WANTED
    assert "cannot give CAP_SYS_ADMIN" in capfd.readouterr().err


def test_the_bounding_set_is_read_from_the_kernel() -> None:
    assert capabilities.names_of(capabilities.bounding()) == sets_of_this_process()["CapBnd:"]
