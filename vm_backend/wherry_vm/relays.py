"""Ports whose bytes we carry ourselves, where the kernel or QEMU leads no way.

On the host that is IPv6, where QEMU does not listen: what comes goes to a port of 127.0.0.1
that QEMU forwards. In the guest it is what listens on ::1 alone, where IPv4 does not get.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Place = tuple[str, int]

_CHUNK = 1 << 16
_IDLE = 60.0
"""Seconds after which nobody answers a datagram any more."""

_MOST_SENDERS = 256
_MOST_STREAMS = 256
"""Connections of one port, each of two threads and two descriptors; others wait for theirs."""

_RECOVERY = 0.5


class StreamRelay:
    """A TCP port at the address and port `at`, of which 0 is any; what comes goes to `to`."""

    def __init__(self, at: Place, to: Place) -> None:
        """Raises OSError where the port cannot be had."""
        self._to = to
        self._free = threading.BoundedSemaphore(_MOST_STREAMS)
        self._listener = socket.create_server(at, family=_family(at), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True, name=f"port {self.port}").start()

    def close(self) -> None:
        """Listen no more; connections that are open go on."""
        # Whoever waits in accept() holds the socket: it has to be told.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while self._listener.fileno() >= 0:
            self._free.acquire()
            try:
                outer, _ = self._listener.accept()
            except OSError:
                self._free.release()
                time.sleep(_RECOVERY)  # no descriptor is free: some will be
                continue
            threading.Thread(target=self._join, args=(outer,), daemon=True).start()

    def _join(self, outer: socket.socket) -> None:
        """Carry a connection's bytes both ways, until both have ended."""
        try:
            with outer, socket.create_connection(self._to) as inner:
                back = threading.Thread(target=_carry, args=(inner, outer), daemon=True)
                back.start()
                _carry(outer, inner)
                back.join()
        except OSError:
            pass  # nobody listens there: neither do we
        finally:
            self._free.release()


class DatagramRelay:
    """A UDP port; each sender has a socket of its own at `to`, and is answered from there."""

    def __init__(self, at: Place, to: Place) -> None:
        """Raises OSError where the port cannot be had."""
        self._to = to
        self._outer = socket.socket(_family(at), socket.SOCK_DGRAM)
        try:
            if self._outer.family == socket.AF_INET6:
                self._outer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._outer.bind(at)
        except OSError:
            self._outer.close()
            raise
        self._outer.setblocking(False)
        self.port: int = self._outer.getsockname()[1]
        self._woken, self._waker = socket.socketpair()
        self._senders: dict[Any, socket.socket] = {}
        # By when they were used, the longest silent first.
        self._used: dict[socket.socket, tuple[Any, float]] = {}
        self._ready = selectors.DefaultSelector()
        threading.Thread(target=self._run, daemon=True, name=f"port {self.port}").start()

    def close(self) -> None:
        """Take and give no more."""
        self._waker.close()

    def _run(self) -> None:
        with contextlib.closing(self._outer), contextlib.closing(self._woken), self._ready:
            for each in (self._outer, self._woken):
                self._ready.register(each, selectors.EVENT_READ)
            while True:
                events = self._ready.select(_IDLE if self._used else None)
                ready = [key.fileobj for key, _ in events]
                if self._woken in ready:
                    break
                for stream in ready:
                    # Windows, and Linux on a socket with a peer, tell here of whoever is gone.
                    with contextlib.suppress(OSError):
                        self._take(stream)
                self._forget(time.monotonic() - _IDLE)
            self._forget(float("inf"))

    def _take(self, stream: Any) -> None:
        if stream is self._outer:
            data, sender = stream.recvfrom(_CHUNK)
            inner = self._senders.get(sender) or self._meet(sender)
            self._use(inner, sender)
            inner.send(data)
        elif stream in self._used:
            sender, _ = self._used[stream]
            self._use(stream, sender)
            self._outer.sendto(stream.recv(_CHUNK), sender)

    def _meet(self, sender: Any) -> socket.socket:
        if len(self._used) >= _MOST_SENDERS:
            self._part(next(iter(self._used)))
        inner = socket.socket(_family(self._to), socket.SOCK_DGRAM)
        inner.setblocking(False)
        inner.connect(self._to)
        self._senders[sender] = inner
        self._ready.register(inner, selectors.EVENT_READ)
        return inner

    def _use(self, inner: socket.socket, sender: Any) -> None:
        self._used.pop(inner, None)
        self._used[inner] = (sender, time.monotonic())

    def _forget(self, since: float) -> None:
        """Part with those who have said and heard nothing."""
        for inner, (_, used) in list(self._used.items()):
            if used >= since:
                break
            self._part(inner)

    def _part(self, inner: socket.socket) -> None:
        sender, _ = self._used.pop(inner)
        del self._senders[sender]
        self._ready.unregister(inner)
        inner.close()


def _family(place: Place) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in place[0] else socket.AF_INET


def _carry(source: socket.socket, target: socket.socket) -> None:
    """Bytes in one direction; its end is passed on."""
    try:
        while data := source.recv(_CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # Whoever carries the other direction waits in one of them.
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
