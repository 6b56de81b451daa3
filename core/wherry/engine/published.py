"""Published ports of containers that are in a machine: it is the host that publishes them.

The machine's agent listens at RUN/ports.sock. It is asked before a container's program
runs, so that a port that is taken on the host is an error as it is natively, and told when
the container has ended. Where no agent listens the ports are this system's alone.

    {"publish": id, "ports": [["tcp", "0.0.0.0", 8080], …]}   {}, {"error": …} or
                                                              {"busy": ["tcp", 8080], "reason": …}
    {"withdraw": id}                                          {}

What is published is all that a container has: what it had before and is not named is not.
"""

from __future__ import annotations

import os

from wherry import paths
from wherry.errors import Conflict, MachineError, from_json
from wherry.origin import ask_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SOCKET = "ports.sock"

_PATIENCE = 20
"""Seconds for the host to answer."""


class Busy(Conflict):
    """A port of the host that another has: (protocol, port)."""

    def __init__(self, reason: dict[str, Any], port: tuple[str, int]) -> None:
        error = from_json(reason)
        super().__init__(error.message, hint=error.hint)
        self.port = port


def inner_address(address: str) -> str:
    """Where this system has to listen for what is published at `address`.

    In a machine that is everywhere: what comes from the host comes by one of its own.
    """
    return "0.0.0.0" if os.path.exists(_path()) else address


def publish(container_id: str, ports: Mapping[str, Any]) -> None:
    """Have the host publish what is NetworkSettings.Ports here. Raises Busy."""
    wanted = [
        [port.rpartition("/")[2], binding["HostIp"] or "0.0.0.0", int(binding["HostPort"])]
        for port, bindings in ports.items()
        for binding in bindings or ()
    ]
    if wanted:
        answer = _ask({"publish": container_id, "ports": wanted})
        if "busy" in answer:
            protocol, port = answer["busy"]
            raise Busy(answer["reason"], (str(protocol), int(port)))


def withdraw(container_id: str) -> None:
    """Have the host take a container's ports back. Safe to call twice."""
    try:
        _ask({"withdraw": container_id})
    except MachineError:
        pass  # with the machine's supervisor its ports have gone


def _ask(question: Mapping[str, Any]) -> dict[str, Any]:
    return ask_at(_path(), question, _PATIENCE) if os.path.exists(_path()) else {}


def _path() -> str:
    return os.path.join(paths.run(), SOCKET)
