"""Carrying what comes to a published port into a container, where the kernel does not.

The firewall sends packets for a published port of root's to the container before any
socket sees them. Not those from ::1, which cannot leave the host, nor those over IPv6 for
a container that has none, and nothing where somebody has flushed the rules: they come to
the socket that holds the port, and go on from here, as all does for an unprivileged user.
"""

from __future__ import annotations

import fcntl
import os
import select

from wherry.lean import sockets
from wherry_linux.network.way import Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

    from wherry_linux.monitor import Monitor

# As much as a pipe may hold without a privilege (pipe-max-size in proc(5)).
_CHUNK = 1 << 20
_MOST_PIPES = 2
_DATAGRAM = 1 << 16
# How often a connection's bytes are moved before it is another's turn.
_TURNS = 16
_NOW = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
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
            descriptor, sender = self._listener._accept()
        except OSError:
            return
        client = sockets.socket(fileno=descriptor)
        client.setblocking(False)
        server = self._way.open(sockets.SOCK_STREAM, sender)
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
        self._flows = (_Flow(client, server), _Flow(server, client))
        for side in self._sides:
            self._monitor.watch(side.fileno(), 0, self._ready)
        self._watch()

    def close(self) -> None:
        self._pairs.discard(self)
        for side in self._sides:
            if side.fileno() >= 0:
                self._monitor.unwatch(side.fileno())
                side.close()
        for flow in self._flows:
            flow.close()
        if not self._pairs:
            _Pipe.close_kept()

    def _watch(self) -> None:
        for at, side in enumerate(self._sides):
            mask = 0
            if self._flows[at].has_room():
                mask |= select.EPOLLIN
            if self._flows[1 - at].waiting:
                mask |= select.EPOLLOUT
            self._monitor.watch(side.fileno(), mask, self._ready)

    def _ready(self, mask: int) -> None:
        try:
            for flow in self._flows:
                flow.move()
        except OSError:
            self.close()
            return
        if all(flow.is_shut for flow in self._flows) or mask & select.EPOLLERR:
            self.close()
        else:
            self._watch()


class _Flow:
    """What goes from one socket to another, by a pipe: no byte of it is ours to copy.

    It has the pipe to itself only as long as there is something in it.
    """

    def __init__(self, source: Any, target: Any) -> None:
        self._source, self._target = source, target
        self._pipe: _Pipe | None = None
        self.waiting = 0
        self.is_shut = False
        self._has_ended = False

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def has_room(self) -> bool:
        """Whether it is worth to look at the source."""
        return not self._has_ended and not self.waiting

    def move(self) -> None:
        """Move what can be moved now. Raises OSError where a side is gone."""
        if self.has_room() or self.waiting:
            pipe = self._pipe = self._pipe or _Pipe.take()
            for _ in range(_TURNS):
                filled = self.has_room() and self._fill(pipe)
                if not (filled or self.waiting) or not self._drain(pipe):
                    break
            if not self.waiting:
                pipe.give()
                self._pipe = None
        if self._has_ended and not self.waiting and not self.is_shut:
            self.is_shut = True
            self._target.shutdown(sockets.SHUT_WR)

    def _fill(self, pipe: _Pipe) -> bool:
        source = self._source.fileno()
        try:
            size = os.splice(source, pipe.write, pipe.capacity, flags=_NOW)
        except (BlockingIOError, InterruptedError):
            return False
        self._has_ended = not size
        self.waiting += size
        return size > 0

    def _drain(self, pipe: _Pipe) -> bool:
        try:
            while self.waiting:
                target = self._target.fileno()
                self.waiting -= os.splice(pipe.read, target, self.waiting, flags=_NOW)
        except (BlockingIOError, InterruptedError):
            return False
        return True


class _Pipe:
    """A pipe that holds much. All of a user's hold no more than 64 such (pipe(7)): few are kept."""

    _kept: ClassVar[list[_Pipe]] = []

    def __init__(self) -> None:
        self.read, self.write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self.capacity = fcntl.fcntl(self.write, fcntl.F_SETPIPE_SZ, _CHUNK)
        except OSError:
            self.capacity = fcntl.fcntl(self.write, fcntl.F_GETPIPE_SZ)

    @classmethod
    def take(cls) -> _Pipe:
        return cls._kept.pop() if cls._kept else cls()

    @classmethod
    def close_kept(cls) -> None:
        while cls._kept:
            cls._kept.pop().close()

    def give(self) -> None:
        """Let others have it; it is empty."""
        if len(self._kept) < _MOST_PIPES:
            self._kept.append(self)
        else:
            self.close()

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)


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
            data, sender = self._socket.recvfrom(_DATAGRAM)
            server = self._senders.get(sender) or self._open(sender)
            if server is not None:
                self._heard.add(sender)
                server.send(data)
        except OSError:
            pass  # a datagram may be lost

    def _open(self, sender: Any) -> Any:
        if len(self._senders) >= _MOST_SENDERS:
            return None
        server = self._way.open(sockets.SOCK_DGRAM, sender)
        if server is None:
            return None
        if not self._senders:
            self._monitor.after(_IDLE, self._forget)
        self._senders[sender] = server
        self._monitor.watch(server.fileno(), select.EPOLLIN, lambda _: self._answer(sender))
        return server

    def _answer(self, sender: Any) -> None:
        try:
            self._socket.sendto(self._senders[sender].recv(_DATAGRAM), sender)
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
