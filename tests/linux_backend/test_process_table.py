"""Processes as `top` shows them, beside what procps says of the same ones."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime

import pytest

from support.requirements import need_tool
from wherry_linux.process_table import TITLES, rows, start_time, terminal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


def test_rows_are_those_of_ps() -> None:
    ps = need_tool("ps")
    arguments = ["cat", "/dev/stdin"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin and child.stdout
        # It has its arguments once it answers; before, it may be seen without them.
        child.stdin.write(b"ready\n")
        child.stdin.flush()
        child.stdout.readline()
        pids = [os.getppid(), os.getpid(), child.pid]
        ours = rows(pids)
        listed = ",".join(map(str, pids))
        told = subprocess.run(
            [ps, "-ww", "-f", "-p", listed], capture_output=True, text=True, check=True
        )
        child.stdin.close()

    titles, *lines = (line.split(None, 7) for line in told.stdout.splitlines())
    assert titles == TITLES
    theirs = {row[1]: row for row in lines}
    assert [row[1] for row in ours] == [str(pid) for pid in sorted(pids)]
    for row in ours:
        other = theirs[row[1]]
        # The load is counted from a moment that is never quite the same; and when this host
        # booted, which a start is counted from, both know to a second.
        assert (row[:3], row[5]) == (other[:3], other[5])
        assert row[4] == other[4] or abs(_minutes(row[4]) - _minutes(other[4])) in (1, 24 * 60 - 1)
        assert row[7] == other[7].rstrip()


def _minutes(start: str) -> int:
    hours, minutes = start.split(":")
    return int(hours) * 60 + int(minutes)


def test_process_that_has_ended_has_no_row() -> None:
    child = subprocess.Popen(["true"])
    child.wait()

    assert rows([child.pid]) == []


@pytest.mark.parametrize(
    ("started", "said"),
    [
        (datetime(2026, 3, 2, 0, 0), "00:00"),
        (datetime(2026, 3, 1, 23, 59), "Mar01"),
        (datetime(2025, 12, 31, 23, 59), "2025"),
    ],
)
def test_start_is_told_by_the_hour_only_on_the_same_day(started: datetime, said: str) -> None:
    now = datetime(2026, 3, 2, 0, 1).timestamp()

    assert start_time(started.timestamp(), now) == said


@pytest.mark.parametrize(
    ("major", "minor", "name"),
    [(136, 5, "pts/5"), (137, 1, "pts/257"), (4, 1, "tty1"), (4, 64, "ttyS0"), (0, 0, "?")],
)
def test_terminal_has_its_name(major: int, minor: int, name: str) -> None:
    assert terminal(os.makedev(major, minor)) == name
