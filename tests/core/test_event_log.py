"""The event log: appended to by many processes, turned over, and followed meanwhile."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from wherry import events, paths

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path))


def _record(number: int) -> None:
    events.record("container", "start", f"{number}", {"name": f"box{number}"})


def _actors(found: object) -> list[str]:
    return [event["Actor"]["ID"] for event in found if event is not None]  # type: ignore[attr-defined]


def test_events_are_read_in_order() -> None:
    for number in range(5):
        _record(number)

    assert _actors(events.read()) == ["0", "1", "2", "3", "4"]
    assert _actors(events.read(next(iter(events.read()))["timeNano"] + 1)) == ["1", "2", "3", "4"]


def test_log_turns_over_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_LARGEST", 2000)
    threads = [threading.Thread(target=_record, args=(number,)) for number in range(12)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(_actors(events.read())) == sorted(str(number) for number in range(12))


def test_follower_gets_every_event_once_while_the_log_turns_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "_LARGEST", 1000)
    numbers = iter(range(50))
    _record(next(numbers))
    found: list[str] = []

    for event in events.follow(0, lambda _: _record(next(numbers))):
        found += _actors([event])
        if len(found) == 50:
            break

    assert found == [str(number) for number in range(50)]


def test_line_that_a_crash_cut_off_is_passed_over() -> None:
    _record(1)
    with open(paths.events(), "ab") as file:
        file.write(b'{"Type": "conta\n[]\n')
    _record(2)

    assert _actors(events.read()) == ["1", "2"]


def test_event_that_cannot_be_written_fails_nothing(tmp_path: Path) -> None:
    os.mkdir(f"{tmp_path}/data")
    os.mkdir(paths.events())

    _record(1)
