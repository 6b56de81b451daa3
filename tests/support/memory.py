"""What it costs to keep containers that do nothing, measured in one way for all."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from support.waiting import wait_until
from wherry.container.wire import CONTROL, Parser, control

if TYPE_CHECKING:
    from support.waiting import Deadline


def wait_settled(root: str, deadline: Deadline) -> None:
    """Wait until each monitor of this WHERRY_ROOT goes on in its own interpreter, and listens."""
    for state in Path(root, "data/containers").glob("*/state.json"):
        monitor = json.loads(state.read_text()).get("MonitorPid")
        if monitor:
            wait_until(partial(has_settled, monitor), deadline)
            _ask(f"{root}/run/containers/{state.parent.name}", deadline)
            wait_until(partial(_sleeps, monitor), deadline)


def has_settled(monitor: int) -> bool:
    """Whether the monitor goes on in its own interpreter."""
    return b"handover" in Path(f"/proc/{monitor}/cmdline").read_bytes()


def _ask(directory: str, deadline: Deadline) -> None:
    """Have a word with a monitor, which answers once it has loaded everything."""
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    parser = Parser()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(deadline.left())
        # A socket's path may have 107 bytes.
        connection.connect(f"/proc/self/fd/{place}/attach.sock")
        os.close(place)
        connection.sendall(control({"op": "attach"}))
        while not any(kind == CONTROL for kind, _ in parser.feed(connection.recv(1 << 16))):
            connection.settimeout(deadline.left())
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"", "it hangs up when we do"


def _sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def pss(pids: list[int]) -> float:
    """Their proportional share of memory, in MB."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def keepers(directory: str, payload: str) -> list[int]:
    """The processes that have to do with `directory`, but are not a container's own."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            process = Path(entry.path)
            command = process.joinpath("cmdline").read_bytes()
            if command.startswith(payload.encode() + b"\0"):
                continue
            if directory.encode() in command + process.joinpath("environ").read_bytes():
                found.append(int(entry.name))
    return found
