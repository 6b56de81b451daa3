"""The channel to the guest's agent: lines of JSON over a virtio-serial port.

It is there before the network, and does not depend on SSH. The guest says

    {"event": "listening"}                       sshd does; nothing else is ready yet
    {"event": "ready", "data", "version",        sshd and the runner listen, that on these ports
     "kernel", "uptime", "commands"}             for commands; `data` is "mounted", or what is
                                                 wrong with the disk
    {"event": "paused"}                          all but the disk is there: wherry_vm.saved
    {"event": "beat", "time": …, "running": n, "binds": […]}
                                                 every few seconds: its clock, how many
                                                 containers run, and what they have mounted
    {"event": "mounted", "mounts": […]}          where the host's directories are mounted now
    {"event": "unmounted", "target": …, "error": …}   sshfs has ended there
    {"event": "told", "number": …}               the changes of that message are done again
    {"event": "adopted", "number": …}            the guest goes by those surroundings

    {"event": "listeners", "listeners": [["tcp", "0.0.0.0", 80], …]}
                                                 what containers with the guest's own network
                                                 listen on now, where that has changed
    {"event": "problem", "text": …}              what the runner writes to its standard error
    {"event": "lost", "ports": [n, …]}           these of them are of no use any more; without a
                                                 number, all
    {"event": "ports", "id": n, …}               a question of wherry.engine.published

and is told

    {"op": "resume", …}                          what goes with a pause's end, see
                                                 wherry_vm.guest.pausing
    {"op": "time", "time": …, "seen": …}         the seconds since 1970 that it is now, where a
                                                 beat has told of those that were seen
    {"op": "mount", "target": …, "port": …, "options": …}   mount a directory of the host
    {"op": "ports", "id": n, "answer": {…}}      what the host answers it
    {"op": "changed", "number": …, "changes": […]}   files of the host, see wherry_vm.shares.news
    {"op": "surroundings", "number": …, …}       what there is around the host, see
                                                 wherry_vm.guest.surroundings
    {"op": "poweroff"}                           end the containers, then yourself

An agent that finds the channel closed has lost its supervisor, and powers the guest off.
"""

from __future__ import annotations

import contextlib
import json
import threading

from wherry_vm.protocol import NONSENSE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

_LONGEST_LINE = 1 << 16


class EventChannel:
    """The host's end; `on_event` is called in a thread of the channel's own."""

    def __init__(self, stream: socket.socket, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._stream = stream
        self._on_event = on_event
        self._sending = threading.Lock()
        threading.Thread(target=self._read, daemon=True, name="events").start()

    def send(self, message: dict[str, Any]) -> None:
        """Tell the guest; without effect where it is gone."""
        with self._sending, contextlib.suppress(OSError):
            self._stream.sendall(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        """Close the channel, which the guest takes as its end."""
        self._stream.close()

    def _read(self) -> None:
        buffer = b""
        with contextlib.suppress(OSError):
            while data := self._stream.recv(4096):
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    self._hear(line)
                if len(buffer) > _LONGEST_LINE:
                    buffer = b""

    def _hear(self, line: bytes) -> None:
        """One message; what makes no sense is nobody's: the guest is not trusted."""
        with contextlib.suppress(*NONSENSE):
            message = json.loads(line)
            if isinstance(message, dict):
                self._on_event(message)
