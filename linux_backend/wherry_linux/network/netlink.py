"""netlink(7): requests to the kernel's networking, and its answers.

`Connection` speaks to one family in one network namespace. What a request says is put
together by the modules that know about it: `links` and `devices` for rtnetlink(7),
`nftables` for the firewall.
"""

from __future__ import annotations

import errno
import os
import struct

from wherry.errors import KernelError
from wherry.lean import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    # A message's type, flags beside those of every request, and what follows the header.
    Request = tuple[int, int, bytes]

# linux/netlink.h
NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_EXCL = 0x200
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
_NESTED = 0x8000
_AF_NETLINK = 16

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


class Message:
    """An answer: its fixed part, and its attributes by number."""

    def __init__(self, payload: bytes, fixed: int) -> None:
        self.fixed = payload[:fixed]
        self.attributes = attributes(payload[fixed:])


def attributes(content: bytes) -> dict[int, bytes]:
    """Attributes by number, the last of each."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(content):
        length, kind = _ATTRIBUTE.unpack_from(content, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = content[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def attribute(kind: int, content: bytes) -> bytes:
    """One attribute, as it goes into a request."""
    padding = -len(content) % 4
    return _ATTRIBUTE.pack(len(content) + _ATTRIBUTE.size, kind) + content + bytes(padding)


def text(kind: int, content: str) -> bytes:
    """An attribute that is a name."""
    return attribute(kind, content.encode() + b"\0")


def nested(kind: int, *content: bytes) -> bytes:
    """An attribute of attributes."""
    return attribute(kind | _NESTED, b"".join(content))


def open_socket(protocol: int = NETLINK_ROUTE) -> Any:
    """A connection to the network namespace that this process is in, owned by the caller."""
    return sockets.socket(_AF_NETLINK, sockets.SOCK_RAW | sockets.SOCK_CLOEXEC, protocol)


class Connection:
    """Requests to one network namespace."""

    def __init__(self, socket: Any = None, protocol: int = NETLINK_ROUTE) -> None:
        """`socket` is closed with the connection; without it, one to our own namespace."""
        self._socket = open_socket(protocol) if socket is None else socket
        self._sequence = 0

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def request(self, kind: int, payload: bytes, flags: int = 0) -> None:
        """Ask for a change. Raises OSError."""
        self.send([(kind, flags, payload)])

    def send(self, requests: Sequence[Request]) -> None:
        """Ask for changes, one after the other, in a single message to the kernel.

        Raises the OSError of the first that failed; those after it were tried as well.
        """
        if not requests:
            return
        first = self._sequence + 1
        packets = [self._packet(kind, NLM_F_ACK | flags, data) for kind, flags, data in requests]
        self._send(b"".join(packets))
        self._acknowledged(first)

    def transact(self, begin: Request, requests: Sequence[Request], end: Request) -> None:
        """Ask for changes that are made all or none. Raises OSError."""
        opening = self._packet(begin[0], begin[1], begin[2])
        first = self._sequence + 1
        packets = [self._packet(kind, NLM_F_ACK | flags, data) for kind, flags, data in requests]
        last = self._sequence
        closing = self._packet(end[0], end[1], end[2])
        self._send(b"".join([opening, *packets, closing]))
        self._sequence, final = last, self._sequence
        try:
            self._acknowledged(first)
        finally:
            self._sequence = final

    def dump(self, kind: int, fixed: int) -> list[Message]:
        """All objects of a kind, whose fixed part has `fixed` bytes."""
        return self.ask(kind, NLM_F_DUMP, bytes(fixed), fixed)

    def get(self, kind: int, payload: bytes, fixed: int) -> Message | None:
        """The one object that is asked for; None if it is not there. Raises OSError."""
        try:
            found = self.ask(kind, NLM_F_ACK, payload, fixed)
        except FileNotFoundError:
            return None
        return found[0] if found else None

    def ask(self, kind: int, flags: int, payload: bytes, fixed: int) -> list[Message]:
        """The answers to a question. Raises OSError."""
        self._send(self._packet(kind, flags, payload))
        return [Message(answer, fixed) for answer in self._answers()]

    def _send(self, packets: bytes) -> None:
        # To an address that is given: then the kernel asks for the power of who sends, and
        # not of who made the socket, which may have come from another user namespace.
        self._socket.sendto(packets, (0, 0))

    def _packet(self, kind: int, flags: int, payload: bytes) -> bytes:
        self._sequence += 1
        length = _HEADER.size + len(payload)
        header = _HEADER.pack(length, kind, NLM_F_REQUEST | flags, self._sequence, 0)
        return header + payload + bytes(-length % 4)

    def _acknowledged(self, first: int) -> None:
        """Wait for the acknowledgements of the requests from `first` to the last."""
        waiting = set(range(first, self._sequence + 1))
        failed: OSError | None = None
        while waiting:
            for kind, sequence, payload in self._received():
                if kind != NLMSG_ERROR or sequence not in waiting:
                    # A transaction that cannot even begin is refused as a whole.
                    if kind == NLMSG_ERROR and sequence < first and (wrong := _error(payload)):
                        raise wrong
                    continue
                waiting.discard(sequence)
                failed = failed or _error(payload)
        if failed is not None:
            raise failed

    def _answers(self) -> Iterator[bytes]:
        """The payloads until the last. Raises the error that the kernel answers with."""
        while True:
            for kind, sequence, payload in self._received():
                if sequence != self._sequence:
                    continue
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    wrong = _error(payload) if kind == NLMSG_ERROR else None
                    if wrong is not None:
                        raise wrong
                    return
                yield payload

    def _received(self) -> Iterator[tuple[int, int, bytes]]:
        data = self._socket.recv(1 << 17)
        while len(data) >= _HEADER.size:
            length, kind, _, sequence, _ = _HEADER.unpack_from(data)
            yield kind, sequence, data[_HEADER.size : length]
            data = data[(length + 3) & ~3 :]


def _error(payload: bytes) -> OSError | None:
    number = -int.from_bytes(payload[:4], "little", signed=True)
    return OSError(number, os.strerror(number)) if number else None


def kernel_error(action: str, error: OSError) -> KernelError:
    """`error` with what could not be done."""
    reason = "there is no such interface" if error.errno == errno.ENODEV else error.strerror
    return KernelError(f"cannot {action}: {reason}", error.errno or 0)
