"""Carrying what comes to a published port into a container, where the kernel does not.

The firewall sends packets for a published port of root's to the container before any
socket sees them. Not those from ::1, which cannot leave the host, nor those over IPv6 for
a container that has none, and nothing where somebody has flushed the rules: they come to
the socket that holds the port, and go on from here, as all does for an unprivileged user.
"""

from __future__ import annotations

import os
import select

from wherry.lean import sockets
from wherry_linux.network.way import Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry_linux.monitor import Monitor

_CHUNK = 1 << 16
# A sender of datagrams from whom nothing has come for so long is forgotten.
_IDLE = 60.0
_MOST_SENDERS = 512


class TcpRelay:
    """A listening socket, and the connections that came by it."""

    def __init__(self, monitor: Monitor, service: dict[str, Any]) -> None:
        self._monitor = monitor
        self._way = Way(service)
        self._listener: Any = sockets.socket(fileno=service["Descriptor"])
        self._pairs: set[_Pair] = set()
        monitor.watch(self._listener.fileno(), select.EPOLLIN, self._accept)

    def lead(self, service: dict[str, Any]) -> None:
        """Connections go to another address from here on."""
        self._way.close()
        self._way = Way(service)

    def close(self) -> None:
        self._monitor.unwatch(self._listener.fileno())
        self._listener.close()
        self._way.close()
        for pair in list(self._pairs):
            pair.close()

    def is_idle(self) -> bool:
        return not self._pairs

    def _accept(self, _mask: int) -> None:
        try:
            descriptor, _ = self._listener._accept()
        except OSError:
            return
        client = sockets.socket(fileno=descriptor)
        client.setblocking(False)
        server = self._way.open(sockets.SOCK_STREAM)
        if server is None:
            client.close()
            return
        self._pairs.add(_Pair(self._monitor, client, server, self._pairs))


class _Pair:
    """One connection: what comes on either side goes out on the other."""

    def __init__(self, monitor: Monitor, client: Any, server: Any, pairs: set[_Pair]) -> None:
        self._monitor = monitor
        self._pairs = pairs
        self._sides = (client, server)
        self._waiting = (bytearray(), bytearray())  # to be written to that side
        self._ended = [False, False]  # nothing more comes from that side
        self._shut = [False, False]  # nothing more goes to that side
        self._handlers = (lambda mask: self._ready(0, mask), lambda mask: self._ready(1, mask))
        self._watch()

    def close(self) -> None:
        self._pairs.discard(self)
        for side in self._sides:
            if side.fileno() >= 0:
                self._monitor.unwatch(side.fileno())
                side.close()

    def _watch(self) -> None:
        for at, side in enumerate(self._sides):
            mask = 0
            if not self._ended[at] and len(self._waiting[1 - at]) < _CHUNK:
                mask |= select.EPOLLIN
            if self._waiting[at]:
                mask |= select.EPOLLOUT
            self._monitor.watch(side.fileno(), mask, self._handlers[at])

    def _ready(self, at: int, mask: int) -> None:
        try:
            if mask & select.EPOLLOUT:
                self._flush(at)
            if mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._read(at)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.close()
            return
        if all(self._shut):
            self.close()
            return
        self._watch()

    def _read(self, at: int) -> None:
        data = self._sides[at].recv(_CHUNK)
        other = 1 - at
        if not data:
            self._ended[at] = True
        self._waiting[other].extend(data)
        self._flush(other)

    def _flush(self, at: int) -> None:
        waiting = self._waiting[at]
        try:
            while waiting:
                del waiting[: self._sides[at].send(waiting)]
        except (BlockingIOError, InterruptedError):
            return
        if self._ended[1 - at] and not self._shut[at]:
            self._shut[at] = True
            self._sides[at].shutdown(sockets.SHUT_WR)


class UdpRelay:
    """A socket for datagrams, and one towards the container for each of their senders."""

    def __init__(self, monitor: Monitor, service: dict[str, Any]) -> None:
        self._monitor = monitor
        self._way = Way(service)
        self._socket = sockets.socket(fileno=service["Descriptor"])
        self._senders: dict[Any, Any] = {}
        self._heard: set[Any] = set()
        monitor.watch(self._socket.fileno(), select.EPOLLIN, self._receive)

    def lead(self, service: dict[str, Any]) -> None:
        """Datagrams go to another address from here on."""
        self._way.close()
        self._way = Way(service)
        for sender in list(self._senders):
            self._drop(sender)

    def close(self) -> None:
        self._monitor.unwatch(self._socket.fileno())
        self._monitor.cancel(self._forget)
        self._socket.close()
        self._way.close()
        for sender in list(self._senders):
            self._drop(sender)

    def is_idle(self) -> bool:
        return not self._senders

    def _receive(self, _mask: int) -> None:
        try:
            data, sender = self._socket.recvfrom(_CHUNK)
            server = self._senders.get(sender) or self._open(sender)
            if server is not None:
                self._heard.add(sender)
                server.send(data)
        except OSError:
            pass  # a datagram may be lost

    def _open(self, sender: Any) -> Any:
        if len(self._senders) >= _MOST_SENDERS:
            return None
        server = self._way.open(sockets.SOCK_DGRAM)
        if server is None:
            return None
        if not self._senders:
            self._monitor.after(_IDLE, self._forget)
        self._senders[sender] = server
        self._monitor.watch(server.fileno(), select.EPOLLIN, lambda _: self._answer(sender))
        return server

    def _answer(self, sender: Any) -> None:
        try:
            self._socket.sendto(self._senders[sender].recv(_CHUNK), sender)
        except OSError:
            pass

    def _forget(self) -> None:
        for sender in set(self._senders) - self._heard:
            self._drop(sender)
        self._heard.clear()
        if self._senders:
            self._monitor.after(_IDLE, self._forget)

    def _drop(self, sender: Any) -> None:
        server = self._senders.pop(sender)
        self._monitor.unwatch(server.fileno())
        server.close()


def start_relay(monitor: Monitor, service: dict[str, Any]) -> TcpRelay | UdpRelay | None:
    """Serve a port that is held; None where there is nothing to hold."""
    if service["Descriptor"] < 0:
        return None
    if service["Protocol"] == "udp":
        return UdpRelay(monitor, service)
    if service["Protocol"] == "sctp":
        return None
    os.set_blocking(service["Descriptor"], False)
    return TcpRelay(monitor, service)
