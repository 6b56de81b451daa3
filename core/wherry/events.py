"""The event log: one JSON line per event, as the Docker Engine API's /events has them.

Many processes append; a line is one write(2) to a file opened with O_APPEND, and so
stays whole. The log is turned over at 4 MiB, and one older file is kept.
"""

from __future__ import annotations

import os
import time

from wherry import paths
from wherry.errors import WherryError
from wherry.files import Lock, make_dir
from wherry.lean import dump_json, load_json
from wherry.lines import TurnedLines
from wherry.shapes import TEXTS, fits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

_LARGEST = 4 << 20
_SHAPE = {
    "Type!": str,
    "Action!": str,
    "Actor!": {"ID!": str, "Attributes": TEXTS},
    "scope": str,
    "timeNano!": int,
}


def record(kind: str, action: str, actor: str, attributes: Mapping[str, str]) -> None:
    """Append an event; `kind` is container, image, volume, network or daemon.

    An event that cannot be written (a full disk) never fails what it tells about.
    """
    now = time.time_ns()
    event: dict[str, Any] = {
        "Type": kind,
        "Action": action,
        "Actor": {"ID": actor, "Attributes": dict(attributes)},
        "scope": "local",
        "time": now // 1_000_000_000,
        "timeNano": now,
    }
    if kind == "container":
        # What the API had before it had Actor; scripts still read it.
        event.update(status=action, id=actor)
        if "image" in attributes:
            event["from"] = attributes["image"]
    elif kind == "image":
        event.update(status=action, id=actor)
    try:
        _append(paths.events(), dump_json(event).encode() + b"\n")
    except (OSError, WherryError):
        pass


def record_prune(kind: str, reclaimed: int = 0) -> None:
    """Append that all unused objects of a kind have been removed."""
    record(kind, "prune", "", {"reclaimed": str(reclaimed)})


def _append(path: str, line: bytes) -> None:
    # Nobody waits for a pipe that lies there in the place of it.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:
        make_dir(os.path.dirname(path))
        descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, line)
        if os.fstat(descriptor).st_size > _LARGEST:
            _turn_over(path, descriptor)
    finally:
        os.close(descriptor)


def _turn_over(path: str, descriptor: int) -> None:
    """Put the file aside, unless somebody else has done so."""
    with Lock(os.path.dirname(path)):
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
            os.replace(path, f"{path}.1")


def read(since_nano: int = 0) -> Iterator[dict[str, Any]]:
    """The events that are in the log, in the order in which they were written."""
    return _parse(TurnedLines(paths.events()).history(), since_nano)


def follow(since_nano: int, wait: Callable[[str], object]) -> Iterator[dict[str, Any] | None]:
    """The events from `since_nano` on, and then each new one.

    `wait(path)` returns when the file may have grown or been replaced; yields None each
    time there is nothing more yet, so that the caller can end at `--until`.
    """
    path = paths.events()
    make_dir(os.path.dirname(path))
    lines = TurnedLines(path)
    yield from _parse(lines.history(), since_nano)
    while True:
        yield None
        wait(path)
        yield from _parse(lines.more(), since_nano)


def _parse(lines: Iterable[bytes], since_nano: int) -> Iterator[dict[str, Any]]:
    """The events of lines; nothing for one that a crash or a full disk has cut off."""
    for line in lines:
        try:
            event = load_json(line)
        except ValueError:
            continue
        if fits(event, _SHAPE) and event["timeNano"] >= since_nano:
            yield event
