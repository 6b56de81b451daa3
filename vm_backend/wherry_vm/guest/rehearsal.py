"""What processes do that wait for a command: once, what most commands need.

Each is a fork, whose pages are its parent's until it writes to them, and to run Python is to
write to some hundreds. To copy those takes an emulated guest longer than `wherry ps` takes
after that. Where a command comes at once nobody waits for a rehearsal.
"""

from __future__ import annotations

import os
import select
import sys

from wherry_vm.protocol import ORIGINS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_MANNERS = 50
"""Milliseconds for a command to come that is on its way."""


_RECORD = {
    "Id": "0" * 64,
    "Name": "rehearsal",
    "Created": "2020-01-01T00:00:00.000000000Z",
    "Image": f"sha256:{0:064}",
    "ImageName": "rehearsal",
    "Layers": [],
    "Body": {
        "Image": "rehearsal", "Env": [], "Cmd": ["true"], "Entrypoint": None, "Labels": {},
        "HostConfig": {
            "Binds": [], "NetworkMode": "default", "LogConfig": {"Type": "json-file", "Config": {}},
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        },
        "NetworkingConfig": {"EndpointsConfig": {}},
    },
    "Mounts": [],
}  # fmt: skip
"""A container, to be listed: most of what `ps` does it does for those that there are."""


def rehearse_unless(stream: Any, act: Callable[[], None]) -> None:
    """`act`, where for a while nothing comes from `stream`."""
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    if not poll.poll(_MANNERS):
        act()


def rehearse(command: Callable[[list[str]], object]) -> None:
    """Have `command` list the containers of a world of its own, to nobody."""
    place = os.path.join(os.environ.get("WHERRY_ORIGINS") or ORIGINS, "rehearsal")
    before = dict(os.environ)
    streams = [os.dup(number) for number in range(3)]
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    os.close(nothing)
    try:
        os.environ.update(WHERRY_BACKEND="linux", WHERRY_ROOT=place)
        _make_container()
        command(["ps", "--all"])
    except Exception:
        pass  # the command, if one comes, tells what is wrong
    finally:
        # What was not said now would be said among the command's own words.
        sys.stdout.flush()
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(before)


def _make_container() -> None:
    """Let the world have the container, whose record is all there is of it."""
    from wherry.container.store import Container
    from wherry.files import make_dir

    container = Container(str(_RECORD["Id"]), _RECORD)
    if not os.path.exists(container.directory):
        make_dir(container.directory)
        container.write_record()
