"""Answers the guest's questions for names as this host's resolvers do, at that moment.

QEMU's own name server asks one resolver, which it knows only in part on macOS and Windows.
Ours knows which servers a VPN has for its domains, those on the host's loopback among them,
and follows a change while containers run. It has a port of 127.0.0.1, which the guest's
firewall leads its questions to; messages are passed on as they are (RFC 1035).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry_vm.surroundings.resolvers import Resolvers, Server

_PATIENCE = 2.0
"""Seconds for one server to answer."""

_FRESH = 2.0
"""Seconds for which what the host said of its resolvers is believed."""

_MOST_QUESTIONS = 64
_LARGEST = 65535
_HEADER = 12
_TRIES = 20
_SERVFAIL, _REFUSED = 2, 5


class Names:
    """A name server for one machine; `read` tells the host's resolvers."""

    def __init__(self, read: Callable[[], Resolvers]) -> None:
        self._read = read
        self._known: tuple[float, Resolvers] | None = None
        self._room = threading.Semaphore(_MOST_QUESTIONS)
        self._stream, self._datagrams = _bound()
        self.port: int = self._stream.getsockname()[1]
        for serve in (self._serve_datagrams, self._serve_streams):
            threading.Thread(target=serve, daemon=True, name="names").start()

    def close(self) -> None:
        """Answer no more."""
        for each in (self._stream, self._datagrams):
            # Whoever waits for what comes holds the socket: it has to be told.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve_datagrams(self) -> None:
        while self._stream.fileno() >= 0:
            # Windows tells here that somebody whom we have answered is gone.
            with contextlib.suppress(OSError):
                message, sender = self._datagrams.recvfrom(_LARGEST)
                self._start(self._answer_datagram, message, sender)

    def _answer_datagram(self, message: bytes, sender: tuple[str, int]) -> None:
        self._datagrams.sendto(self.answer(message, _ask_by_datagram), sender)

    def _serve_streams(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self._stream.accept()
                self._start(self._answer_stream, stream)

    def _answer_stream(self, stream: socket.socket) -> None:
        with stream:
            stream.settimeout(_PATIENCE)
            while message := _receive(stream):
                stream.sendall(_framed(self.answer(message, _ask_by_stream)))

    def _start(self, answer: Callable[..., None], *arguments: Any) -> None:
        """Answer in a thread; what is not answered will be asked again."""

        def run() -> None:
            try:
                with contextlib.suppress(OSError):
                    answer(*arguments)
            finally:
                self._room.release()

        if self._room.acquire(blocking=False):
            threading.Thread(target=run, daemon=True, name="question").start()

    def answer(self, message: bytes, ask: Callable[[bytes, Server], bytes]) -> bytes:
        """What the first server says that knows; that it failed where none does.

        Raises OSError for what is no question.
        """
        name = asked_name(message)
        failure = message[:2] + bytes((message[2] | 0x80, 0x80 | _SERVFAIL)) + message[4:]
        for server in self._resolvers().servers(name):
            try:
                said = ask(message, server)
            except OSError:
                continue
            if said[3] & 0xF not in (_SERVFAIL, _REFUSED):
                return said
            failure = said
        return failure

    def _resolvers(self) -> Resolvers:
        now = time.monotonic()
        if self._known is None or now - self._known[0] > _FRESH:
            self._known = (now, self._read())
        return self._known[1]


def asked_name(message: bytes) -> str:
    """The name that a message asks for first. Raises OSError where it asks for none."""
    labels = []
    at = _HEADER
    while at < len(message) and (size := message[at]):
        labels.append(message[at + 1 : at + 1 + size].decode("ascii", "replace"))
        at += 1 + size
    if at >= len(message):
        raise OSError("no question")
    return ".".join(labels)


def _bound() -> tuple[socket.socket, socket.socket]:
    """A stream's and a datagram's socket at the same port of 127.0.0.1."""
    for left in reversed(range(_TRIES)):
        stream = socket.create_server(("127.0.0.1", 0), backlog=16)
        datagrams = socket.socket(type=socket.SOCK_DGRAM)
        try:
            datagrams.bind(stream.getsockname())
            return stream, datagrams
        except OSError:
            stream.close()
            datagrams.close()
            if not left:
                raise
    raise AssertionError


def _ask_by_datagram(message: bytes, server: Server) -> bytes:
    with _reach(server, socket.SOCK_DGRAM) as asked:
        asked.send(message)
        deadline = time.monotonic() + _PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            asked.settimeout(left)
            said = asked.recv(_LARGEST)
            if len(said) >= _HEADER and said[:2] == message[:2]:
                return said
    raise TimeoutError


def _ask_by_stream(message: bytes, server: Server) -> bytes:
    with _reach(server, socket.SOCK_STREAM) as asked:
        asked.sendall(_framed(message))
        said = _receive(asked)
    if len(said) < _HEADER:
        raise OSError("no answer")
    return said


def _reach(server: Server, kind: socket.SocketKind) -> socket.socket:
    """A socket that is connected to a server, by its address."""
    family, _, _, _, where = socket.getaddrinfo(*server, type=kind, flags=socket.AI_NUMERICHOST)[0]
    asked = socket.socket(family, kind)
    try:
        asked.settimeout(_PATIENCE)
        asked.connect(where)
    except OSError:
        asked.close()
        raise
    return asked


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def _receive(stream: socket.socket) -> bytes:
    """A message of a stream; nothing where it ends."""
    size = int.from_bytes(_exactly(stream, 2), "big")
    return _exactly(stream, size)


def _exactly(stream: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data
