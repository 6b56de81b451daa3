"""The resolver at 127.0.0.11 of a container on networks that have names.

Its sockets are in the container's network namespace, and served by the container's
monitor, which is on the host: what it does not know it asks the host's resolvers, as they
are at that moment, those on the host's loopback among them. It costs no process.

The sockets have ports of their own, and the namespace's firewall leads port 53 of
127.0.0.11 to them: a container may well have a name server itself.
"""

from __future__ import annotations

import os
import select
import struct
import time

from wherry import paths
from wherry.errors import WherryError
from wherry.files import read_json
from wherry.lean import sockets
from wherry.network import leases
from wherry.network.files import host_nameservers
from wherry.network.ip import packed
from wherry_linux.network import dns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry_linux.monitor import Monitor
    from wherry_linux.network.dns import Question

    Answered = Callable[[bytes], None]

ADDRESS = "127.0.0.11"
_PATIENCE = 2.0  # with one resolver of the host
_MOST_QUESTIONS = 256
_MOST_CONNECTIONS = 32
_LARGEST = 65535
# The clock of file systems moves in steps; what has changed just now may change again.
_CLOCK_STEP = 50_000_000


def open_resolver(container_id: str, pid: int) -> dict[str, Any]:
    """The resolver's sockets, in the network namespace of `pid`, as a service."""
    from wherry_linux.network.entering import sockets_within
    from wherry_linux.network.firewall import redirect_names
    from wherry_linux.network.netlink import kernel_error

    def make() -> tuple[Any, Any]:
        datagrams = _bound(sockets.SOCK_DGRAM)
        stream = _bound(sockets.SOCK_STREAM)
        stream.listen(16)
        redirect_names(ADDRESS, datagrams.getsockname()[1], stream.getsockname()[1])
        return datagrams, stream

    try:
        datagrams, stream = sockets_within(pid, make)
    except OSError as error:
        raise kernel_error("make the container's resolver", error) from error
    service = {"Kind": "names", "Id": container_id, "Key": "names"}
    return {**service, "Datagrams": datagrams, "Stream": stream}


def _bound(kind: int) -> Any:
    socket = sockets.socket(sockets.AF_INET, kind | sockets.SOCK_CLOEXEC)
    socket.setblocking(False)
    socket.bind((ADDRESS, 0))
    return socket


class Resolver:
    """Answers the questions of one container."""

    def __init__(self, monitor: Monitor, service: dict[str, Any]) -> None:
        self._monitor = monitor
        self._names = Names(service["Id"])
        self._asked: set[_Inquiry] = set()
        self._connections: set[_Connection] = set()
        self._datagrams = sockets.socket(fileno=service["Datagrams"])
        self._stream: Any = sockets.socket(fileno=service["Stream"])
        monitor.watch(self._datagrams.fileno(), select.EPOLLIN, self._receive)
        monitor.watch(self._stream.fileno(), select.EPOLLIN, self._accept)

    def close(self) -> None:
        for inquiry in list(self._asked):
            inquiry.close()
        for connection in list(self._connections):
            connection.close()
        for socket in (self._datagrams, self._stream):
            self._monitor.unwatch(socket.fileno())
            socket.close()

    def is_idle(self) -> bool:
        return not self._asked and not self._connections

    def _receive(self, _mask: int) -> None:
        try:
            message, sender = self._datagrams.recvfrom(_LARGEST)
        except OSError:
            return

        def answered(answer: bytes) -> None:
            try:
                self._datagrams.sendto(answer, sender)
            except OSError:
                pass  # it will ask again

        self.resolve(message, answered)

    def _accept(self, _mask: int) -> None:
        try:
            descriptor, _ = self._stream._accept()
        except OSError:
            return
        socket = sockets.socket(fileno=descriptor)
        if len(self._connections) >= _MOST_CONNECTIONS:
            socket.close()
            return
        self._connections.add(_Connection(self._monitor, self, socket, self._connections))

    def resolve(self, message: bytes, answered: Answered, *, stream: bool = False) -> None:
        """Have `answered` called with the answer, now or later."""
        question = dns.read_question(message)
        if question is None:
            return
        known = self._names.answer(question, whole=stream)
        if known is not None:
            answered(known)
            return
        servers = self._names.servers()
        if not servers or len(self._asked) >= _MOST_QUESTIONS:
            answered(dns.answer(question, (), dns.SERVER_FAILURE))
            return
        kind = sockets.SOCK_STREAM if stream else sockets.SOCK_DGRAM
        _Inquiry(self._monitor, message, question, servers, kind, answered, self._asked)


class Names:
    """What the containers on a container's networks are called."""

    def __init__(self, container_id: str) -> None:
        self._container_id = container_id
        self._own = os.path.join(paths.run_container(container_id), "network.json")
        self._seen: tuple[int, ...] = ()
        self._networks: list[str] = []
        self._addresses: dict[str, list[str]] = {}
        self._pointers: dict[str, str] = {}
        self._is_cut_off = False
        self._turn = 0

    def answer(self, question: Question, *, whole: bool) -> bytes | None:
        """The answer to a question about a container; None where it is about none."""
        self._refresh()
        if question.kind == dns.PTR:
            name = self._pointers.get(dns.address_of(question.name) or "")
            return (name and dns.answer(question, [(dns.PTR, dns.domain(name))])) or None
        addresses = self._addresses.get(question.name)
        if addresses is None:
            return None
        self._turn += 1
        records = [
            (dns.AAAA if ":" in address else dns.A, packed(address))
            for address in _turned(addresses, self._turn)
        ]
        wanted = [each for each in records if question.kind in (each[0], dns.ANY)]
        return dns.answer(question, wanted, whole=whole)

    def servers(self) -> list[str]:
        """Who is asked about other names; nobody, where no network leads anywhere."""
        self._refresh()
        return [] if self._is_cut_off else host_nameservers(self._container_id)

    def _refresh(self) -> None:
        seen = (_changed(self._own), *(_changed(leases.directory(each)) for each in self._networks))
        if seen == self._seen:
            return
        try:
            own = read_json(self._own)["Endpoints"]
        except (OSError, WherryError, KeyError):
            own = []
        self._networks = [each["NetworkID"] for each in own]
        self._is_cut_off = all(each["Wherry"]["Internal"] for each in own)
        seen = (_changed(self._own), *(_changed(leases.directory(each)) for each in self._networks))
        self._read()
        is_settled = max(seen) < time.time_ns() - _CLOCK_STEP
        self._seen = seen if is_settled else ()

    def _read(self) -> None:
        self._addresses, self._pointers = {}, {}
        for network_id in self._networks:
            for each in leases.endpoints(network_id).values():
                has = [each[key] for key in ("IPAddress", "GlobalIPv6Address") if each[key]]
                full = f"{each['Container']}.{each['Network']}"
                called = [name.lower() for name in each["DNSNames"] or ()]
                for name in [*called, *(f"{name}.{each['Network'].lower()}" for name in called)]:
                    self._addresses.setdefault(name, []).extend(has)
                if called:
                    self._pointers.update(dict.fromkeys(has, full))


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _turned(addresses: list[str], turn: int) -> list[str]:
    """Another one first each time, so that several containers of a name share the work."""
    at = turn % len(addresses) if addresses else 0
    return addresses[at:] + addresses[:at]


class _Inquiry:
    """A question to the host's resolvers, one after the other."""

    def __init__(
        self,
        monitor: Monitor,
        message: bytes,
        question: Question,
        servers: list[str],
        kind: int,
        answered: Answered,
        group: set[_Inquiry],
    ) -> None:
        self._monitor = monitor
        self._message = message
        self._question = question
        self._servers = list(servers)
        self._kind = kind
        self._answered = answered
        self._group = group
        self._socket: Any = None
        self._received = bytearray()
        self._give_up = self._next  # one object, by which its timer is found
        group.add(self)
        self._next()

    def close(self) -> None:
        self._group.discard(self)
        self._drop()

    def _drop(self) -> None:
        self._monitor.cancel(self._give_up)
        if self._socket is not None:
            self._monitor.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _next(self) -> None:
        self._drop()
        self._received.clear()
        while self._servers:
            if self._ask(self._servers.pop(0)):
                self._monitor.after(_PATIENCE, self._give_up)
                return
        self._end(dns.answer(self._question, (), dns.SERVER_FAILURE))

    def _ask(self, server: str) -> bool:
        family = sockets.AF_INET6 if ":" in server else sockets.AF_INET
        try:
            self._socket = sockets.socket(family, self._kind | sockets.SOCK_CLOEXEC)
            self._socket.setblocking(False)
            self._socket.connect(_place(server))
        except BlockingIOError:
            pass
        except OSError:
            self._drop()
            return False
        self._monitor.watch(self._socket.fileno(), select.EPOLLOUT, self._ready)
        return True

    def _ready(self, mask: int) -> None:
        try:
            if mask & select.EPOLLOUT:
                is_stream = self._kind == sockets.SOCK_STREAM
                length = struct.pack(">H", len(self._message)) if is_stream else b""
                self._socket.send(length + self._message)
                self._monitor.watch(self._socket.fileno(), select.EPOLLIN, self._ready)
                return
            data = self._socket.recv(_LARGEST)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._next()
            return
        if self._kind == sockets.SOCK_STREAM:
            if not data:
                self._next()
                return
            self._received += data
            if (whole := _whole_message(self._received)) is None:
                return
            data = whole
        if data[:2] == self._message[:2] and self._question.wire.lower() in data.lower():
            self._end(data)

    def _end(self, answer: bytes) -> None:
        self.close()
        self._answered(answer)


class _Connection:
    """A connection of the container's: questions, each after its length."""

    def __init__(
        self, monitor: Monitor, resolver: Resolver, socket: Any, group: set[_Connection]
    ) -> None:
        self._monitor = monitor
        self._resolver = resolver
        self._socket = socket
        self._group = group
        self._received = bytearray()
        self._waiting = bytearray()  # to be written
        socket.setblocking(False)
        self._too_slow = self.close
        monitor.watch(socket.fileno(), select.EPOLLIN, self._ready)
        monitor.after(10, self._too_slow)

    def close(self) -> None:
        self._group.discard(self)
        self._monitor.cancel(self._too_slow)
        if self._socket.fileno() >= 0:
            self._monitor.unwatch(self._socket.fileno())
            self._socket.close()

    def _ready(self, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._flush()
            return
        try:
            data = self._socket.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._received += data
        while (message := _whole_message(self._received)) is not None:
            self._resolver.resolve(message, self._answered, stream=True)

    def _answered(self, answer: bytes) -> None:
        if self._socket.fileno() >= 0:
            self._waiting += struct.pack(">H", len(answer)) + answer
            self._flush()

    def _flush(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: self._socket.send(self._waiting)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        # Who does not read what was answered is asked nothing more.
        mask = select.EPOLLOUT if self._waiting else select.EPOLLIN
        self._monitor.watch(self._socket.fileno(), mask, self._ready)


def _place(server: str) -> tuple[Any, ...]:
    """Where a resolver is: fe80::1%eth0 is one of a link's."""
    address, percent, link = server.partition("%")
    return (address, 53, 0, sockets.if_nametoindex(link)) if percent else (address, 53)


def _whole_message(received: bytearray) -> bytes | None:
    """Take a message from the front of what was received, if all of it is there."""
    if len(received) < 2:
        return None
    end = 2 + int.from_bytes(received[:2], "big")
    if len(received) < end:
        return None
    message = bytes(received[2:end])
    del received[:end]
    return message
