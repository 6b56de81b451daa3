"""The event log: one JSON line per event, as the Docker Engine API's /events has them.

Many processes append; a line is one write(2) to a file opened with O_APPEND, and so
stays whole. The log is turned over at 4 MiB, and one older file is kept.
"""

from __future__ import annotations

import os
import time

from wherry import paths
from wherry.files import make_dir
from wherry.lean import dump_json, load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_LARGEST = 4 << 20


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
    line = dump_json(event).encode() + b"\n"
    path = paths.events()
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            make_dir(os.path.dirname(path))
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line)
            if os.fstat(descriptor).st_size > _LARGEST:
                os.replace(path, f"{path}.1")
        finally:
            os.close(descriptor)
    except OSError:
        pass


def read(since_nano: int = 0) -> Iterator[dict[str, Any]]:
    """The events that are in the log, oldest first."""
    path = paths.events()
    for name in (f"{path}.1", path):
        try:
            with open(name, "rb") as lines:
                for line in lines:
                    event = _parse(line)
                    if event is not None and event["timeNano"] >= since_nano:
                        yield event
        except FileNotFoundError:
            pass


def _parse(line: bytes) -> dict[str, Any] | None:
    """The event of a line; None for one that a crash or a full disk has cut off."""
    try:
        event = load_json(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "timeNano" in event else None


def follow(since_nano: int, wait: Any) -> Iterator[dict[str, Any] | None]:
    """The events from `since_nano` on, and then each new one.

    `wait(path)` returns when the file may have grown or been replaced; yields None each
    time there is nothing more yet, so that the caller can end at `--until`.
    """
    path = paths.events()
    make_dir(os.path.dirname(path))
    last = since_nano - 1
    while True:
        for event in read(last + 1):
            last = event["timeNano"]
            yield event
        yield None
        wait(path)
