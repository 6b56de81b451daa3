"""`wherry machine bench`: what it prints, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.cli import Cli

pytestmark = [pytest.mark.vm, pytest.mark.network]

SHARED = Path("/tmp")
SECONDS = 280


_IN_THE_GUEST = """\
ls -d /var/tmp/wherry-bench* /run/wherry-bench* 2>/dev/null
grep wherry-bench /proc/mounts
true
"""


def left_behind(machine: Cli) -> list[str]:
    """What a measurement has left on the host and in the machine."""
    found = [str(each) for each in SHARED.glob(".wherry-bench-*")]
    found += machine("machine", "ssh", "default", "sh", "-c", _IN_THE_GUEST).lines
    found += machine("ps", "--all", "--quiet").lines
    return found + [line for line in machine("images").lines if "wherry-bench" in line]


def test_it_measures_files_commands_and_ports(machine: Cli) -> None:
    result = machine("machine", "bench", "--format", "json", timeout=SECONDS)

    rows = [json.loads(line) for line in result.lines]
    assert all(row["Value"] > 0 for row in rows)
    units = {(row["Measure"], row["Where"]): row["Unit"] for row in rows}
    for where in ("disk", "share, by virtio-serial", "share, by SSH"):
        assert units["files created", where] == "1/s"
        assert units["large file read", where] == "MB/s"
    assert units["to the host", "published port"] == "MB/s"
    assert units["from it", "published port"] == "MB/s"
    assert units["ps", "command"] == "ms"
    assert left_behind(machine) == []


def test_ctrl_c_ends_it_and_leaves_nothing(machine: Cli) -> None:
    process = machine.start("machine", "bench", new_session=True)
    assert process.stderr is not None
    said = b""
    while b"by virtio-serial" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line

    # As a terminal does: to all of its processes.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=SECONDS)

    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert left_behind(machine) == []
