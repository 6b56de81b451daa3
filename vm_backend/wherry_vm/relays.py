"""Ports of this host's IPv6 addresses, where QEMU does not listen.

What comes is carried to a port of 127.0.0.1 that QEMU forwards into the guest.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time

_CHUNK = 1 << 16
_IDLE = 60.0
"""Seconds after which nobody answers a datagram any more."""


class StreamRelay:
    """A TCP port; what comes goes to `inner`, a port of 127.0.0.1."""

    def __init__(self, host: str, port: int, inner: int) -> None:
        """Raises OSError where the port cannot be had."""
        self.inner = inner
        self._listener = socket.create_server(
            (host, port), family=socket.AF_INET6, backlog=128, dualstack_ipv6=False
        )
        threading.Thread(target=self._accept, daemon=True, name=f"port {port}").start()

    def close(self) -> None:
        """Listen no more; connections that are open go on."""
        # Whoever waits in accept() holds the socket: it has to be told.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                outer, _ = self._listener.accept()
            except OSError:
                return
            try:
                inner = socket.create_connection(("127.0.0.1", self.inner))
            except OSError:
                outer.close()
                continue
            for source, target in ((outer, inner), (inner, outer)):
                threading.Thread(target=_carry, args=(source, target), daemon=True).start()


class DatagramRelay:
    """A UDP port; each sender has a socket of its own at `inner`, and is answered from there."""

    def __init__(self, host: str, port: int, inner: int) -> None:
        """Raises OSError where the port cannot be had."""
        self.inner = inner
        self._outer = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            self._outer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._outer.bind((host, port))
        except OSError:
            self._outer.close()
            raise
        self._outer.setblocking(False)
        self._woken, self._waker = socket.socketpair()
        self._senders: dict[tuple[str, int, int, int], socket.socket] = {}
        self._used: dict[socket.socket, tuple[tuple[str, int, int, int], float]] = {}
        threading.Thread(target=self._run, daemon=True, name=f"port {port}").start()

    def close(self) -> None:
        """Take and give no more."""
        self._waker.close()

    def _run(self) -> None:
        with contextlib.closing(self._outer), contextlib.closing(self._woken):
            while True:
                wait = _IDLE if self._used else None
                sockets = (self._outer, self._woken, *self._used)
                ready, _, _ = select.select(sockets, (), (), wait)
                if self._woken in ready:
                    break
                for each in ready:
                    # Windows, and Linux on a socket with a peer, tell here of whoever is gone.
                    with contextlib.suppress(OSError):
                        self._take(each)
                self._forget(time.monotonic() - _IDLE)
            self._forget(float("inf"))

    def _take(self, stream: socket.socket) -> None:
        now = time.monotonic()
        if stream is self._outer:
            data, sender = stream.recvfrom(_CHUNK)
            inner = self._senders.get(sender) or self._meet(sender)
            self._used[inner] = (sender, now)
            inner.send(data)
        else:
            sender, _ = self._used[stream]
            self._used[stream] = (sender, now)
            self._outer.sendto(stream.recv(_CHUNK), sender)

    def _meet(self, sender: tuple[str, int, int, int]) -> socket.socket:
        inner = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        inner.setblocking(False)
        inner.connect(("127.0.0.1", self.inner))
        self._senders[sender] = inner
        return inner

    def _forget(self, since: float) -> None:
        """Close the sockets of those who have said and heard nothing."""
        for inner, (sender, used) in list(self._used.items()):
            if used < since:
                inner.close()
                del self._used[inner], self._senders[sender]


def _carry(source: socket.socket, target: socket.socket) -> None:
    """Bytes in one direction; its end is passed on."""
    try:
        while data := source.recv(_CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        target.close()
