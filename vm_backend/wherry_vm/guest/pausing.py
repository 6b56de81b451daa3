"""A guest that waits for its host's word, so that it can be written down: see wherry_vm.saved.

Everything is up then but the data disk. What the guest must have anew each time it goes on
comes with the word:

    {"op": "resume", "time": …, "random": …, "disk": "new"}

The kernel has not been asked for the identity of its boot before: it makes one up when it
first is, out of what is random by then.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import time
from binascii import a2b_base64

from wherry.lean import load_json
from wherry_vm.protocol import PAUSE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_COMMAND_LINE = "/proc/cmdline"
_STATE = "/run/wherry-guest"
_MODULES = f"{_STATE}/modules"
_RESUMED = f"{_STATE}/resumed"
_LOOK = 0.02

# linux/random.h
_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207


def is_to_pause() -> bool:
    """Whether the host wants this start to pause, and it has not yet."""
    if os.path.exists(_RESUMED):
        return False
    with open(_COMMAND_LINE, encoding="ascii", errors="replace") as file:
        return PAUSE in file.read().split()


def pause(port: int, is_listening: Callable[[], bool], say: Callable[..., None]) -> bool:
    """Tell the host when nothing more goes on here, and wait for its word on `port`.

    True where the data disk is one that no guest has mounted yet.
    """
    # What comes after is there already when the guest goes on.
    import subprocess  # noqa: F401

    from wherry_vm.guest import listeners, news, surroundings  # noqa: F401

    while not (is_listening() and os.path.exists(_MODULES)):
        time.sleep(_LOOK)
    say({"event": "paused"})
    line = b""
    while not line.endswith(b"\n"):
        select.select([port], [], [])
        line += os.read(port, 1)
    message = load_json(line)
    go_on(message)
    say({"event": "listening"})
    return bool(message["disk"] == "new")


def go_on(message: Mapping[str, Any]) -> None:
    """Be another guest than the last one that was resumed from here."""
    add_randomness(a2b_base64(message["random"]))
    time.clock_settime(time.CLOCK_REALTIME, float(message["time"]))
    with open(_RESUMED, "w", encoding="ascii"):
        pass


def add_randomness(content: bytes) -> None:
    """Have all that is random from now on depend on `content`, too."""
    with open("/dev/urandom", "wb", buffering=0) as device:
        entropy = struct.pack("ii", 8 * len(content), len(content)) + content
        fcntl.ioctl(device, _RNDADDENTROPY, entropy)
        fcntl.ioctl(device, _RNDRESEEDCRNG)
