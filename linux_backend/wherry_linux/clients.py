"""The commands that are connected to a monitor, each with its own pace."""

from __future__ import annotations

import select
import struct

from wherry.container.wire import CONTROL, STDERR, STDIN, STDOUT, Parser
from wherry.lean import load_json, sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry_linux.monitor import Monitor

# A client that does not read may be this far behind before its container has to wait.
_BACKLOG = 1 << 20

# So long does a container wait for somebody who only looks on.
_PATIENCE = 10.0


class Client:
    """A command that is connected to a monitor."""

    def __init__(self, monitor: Monitor, socket: Any) -> None:
        self.monitor = monitor
        self.socket = socket
        self.wants: set[int] = set()
        self.has_stdin = False
        # The command that started the container: the container waits for it as a program
        # waits for the reader of its pipe.
        self.is_first = False
        self.is_leaving = False
        self.parser = Parser()
        self.queue = bytearray()
        socket.setblocking(False)
        monitor.watch(socket.fileno(), select.EPOLLIN, self._ready)

    def attach(self, options: Mapping[str, Any]) -> None:
        """Send these streams from now on."""
        self.wants = {
            kind for kind, name in ((STDOUT, "stdout"), (STDERR, "stderr")) if options.get(name)
        }
        self.has_stdin = bool(options.get("stdin"))

    def is_attached(self) -> bool:
        """Whether the client has asked for a stream: others only want to hear of the end."""
        return bool(self.wants) or self.has_stdin

    def saved(self) -> dict[str, Any]:
        """What `restored` needs in another interpreter; the socket as a descriptor."""
        return {
            "socket": self.socket.fileno(),
            "wants": sorted(self.wants),
            "has_stdin": self.has_stdin,
            "is_first": self.is_first,
            "queue": self.queue.decode("latin-1"),
            "received": self.parser.buffer.decode("latin-1"),
        }

    @classmethod
    def restored(cls, monitor: Monitor, saved: Mapping[str, Any]) -> Client:
        client = cls(monitor, sockets.socket(fileno=saved["socket"]))
        client.wants = set(saved["wants"])
        client.has_stdin = saved["has_stdin"]
        client.is_first = saved["is_first"]
        client.queue += saved["queue"].encode("latin-1")
        client.parser.buffer += saved["received"].encode("latin-1")
        client.watch()
        if client.is_behind() and not client.is_first:
            monitor.after(_PATIENCE, client.give_up)
        return client

    def is_behind(self) -> bool:
        """Whether more waits to be sent than we care to hold."""
        return len(self.queue) > _BACKLOG

    def send(self, packet: bytes) -> None:
        """Send `packet` as soon as the client reads."""
        was_behind = self.is_behind()
        self.queue += packet
        self._flush()
        if self.is_behind() and not was_behind and not self.is_first:
            self.monitor.after(_PATIENCE, self.give_up)

    def _flush(self) -> None:
        was_behind = self.is_behind()
        try:
            while self.queue:
                del self.queue[: self.socket.send(self.queue)]
        except BlockingIOError:
            pass
        except OSError:
            self.give_up()
            return
        if was_behind and not self.is_behind():
            self.monitor.cancel(self.give_up)
            self.monitor.resume_outputs()
        if self.is_leaving and not self.queue:
            self.give_up()
        else:
            self.watch()

    def watch(self) -> None:
        """Listen, unless this client types faster than the container reads."""
        is_held = self.has_stdin and self.monitor.stdin_is_full()
        mask = (0 if is_held else select.EPOLLIN) | (select.EPOLLOUT if self.queue else 0)
        self.monitor.watch(self.socket.fileno(), mask, self._ready)

    def _ready(self, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._flush()
        if self in self.monitor.clients and mask & (
            select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
        ):
            self._receive()

    def _receive(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.give_up()
            return
        try:
            for kind, payload in self.parser.feed(data):
                if kind == STDIN:
                    self.monitor.write_stdin(payload)
                elif kind == CONTROL:
                    self.monitor.handle(self, load_json(payload))
        except (AttributeError, LookupError, TypeError, ValueError, struct.error):
            # These are no words of ours: the container must not suffer from who says them.
            self.give_up()
            return
        if self in self.monitor.clients:
            self.watch()

    def give_up(self) -> None:
        """Close the connection, and forget what has not been read."""
        if self not in self.monitor.clients:
            return
        self.monitor.clients.remove(self)
        self.monitor.cancel(self.give_up)
        self.monitor.unwatch(self.socket.fileno())
        self.socket.close()
        self.queue.clear()
        if self.has_stdin and not any(other.has_stdin for other in self.monitor.clients):
            self.monitor.end_stdin()
        self.monitor.resume_outputs()

    def leave(self, packet: bytes) -> None:
        """Say the last words, and close as soon as they have been read."""
        self.is_leaving = True
        self.has_stdin = False
        self.queue += packet
        self._flush()
        if self in self.monitor.clients and not self.is_first:
            self.monitor.after(_PATIENCE, self.give_up)
