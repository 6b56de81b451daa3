"""Many who make their bridges at the same moment, on a host that has none yet."""

from __future__ import annotations

import os
from typing import Any

import pytest

from wherry_linux.constants import CLONE_NEWNET, CLONE_NEWNS
from wherry_linux.network import bridges
from wherry_linux.userns import in_child

pytestmark = pytest.mark.linux

_MANY = 8


def bridge(number: int) -> dict[str, Any]:
    return {
        "Bridge": f"wherry-{number}",
        "Gateways": [(f"10.{number}.0.1", 16)],
        "MacAddress": f"02:42:00:00:00:0{number}",
        "HasIPv6": False,
        "Mtu": 0,
        "Internal": False,
        "Masquerade": True,
        "AmongThem": True,
    }


def make_at_once() -> list[int]:
    """The exit codes of those who make a bridge each, half of them the same as another."""
    ready, go = os.pipe()
    children = []
    for number in range(_MANY):
        if child := os.fork():
            children.append(child)
            continue
        code = 1
        try:
            os.close(go)
            os.read(ready, 1)  # until the parent closes its end
            bridges.ensure(bridge(number // 2))
            code = 0
        finally:
            os._exit(code)
    os.close(go)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_everyone_has_a_bridge() -> None:
    for _ in range(5):
        assert in_child(make_at_once, CLONE_NEWNET | CLONE_NEWNS, None) == [0] * _MANY
