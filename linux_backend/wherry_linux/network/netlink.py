"""rtnetlink(7), as far as moving an interface takes it."""

from __future__ import annotations

import errno
import os
import struct

from wherry.errors import KernelError
from wherry.lean import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# linux/netlink.h, linux/rtnetlink.h
NLMSG_ERROR = 2
NLMSG_DONE = 3
RTM_NEWLINK = 16
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_GETADDR = 22
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400
NLM_F_EXCL = 0x200
# linux/if_link.h, linux/if_addr.h
IFLA_IFNAME = 3
IFLA_NET_NS_FD = 28
IFA_LABEL = 3
IFA_CACHEINFO = 6
IFA_FLAGS = 8

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_PROTOCOL = 0  # NETLINK_ROUTE
_AF_NETLINK = 16


class Message:
    """An answer: its fixed part, and its attributes by number."""

    def __init__(self, payload: bytes, fixed: int) -> None:
        self.fixed = payload[:fixed]
        self.attributes: dict[int, bytes] = {}
        at = fixed
        while at + _ATTRIBUTE.size <= len(payload):
            length, kind = _ATTRIBUTE.unpack_from(payload, at)
            if length < _ATTRIBUTE.size:
                break
            self.attributes[kind & 0x3FFF] = payload[at + _ATTRIBUTE.size : at + length]
            at += (length + 3) & ~3


def attribute(kind: int, content: bytes) -> bytes:
    """One attribute, as it goes into a request."""
    padding = -len(content) % 4
    return _ATTRIBUTE.pack(len(content) + _ATTRIBUTE.size, kind) + content + bytes(padding)


def open_socket() -> Any:
    """A connection to the network namespace that this process is in, owned by the caller."""
    return sockets.socket(_AF_NETLINK, sockets.SOCK_RAW | sockets.SOCK_CLOEXEC, _PROTOCOL)


class Route:
    """Requests to one network namespace."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def request(self, kind: int, payload: bytes, flags: int = 0) -> None:
        """Ask for a change. Raises OSError."""
        self._send(kind, NLM_F_REQUEST | NLM_F_ACK | flags, payload)
        for _ in self._answers():
            pass

    def dump(self, kind: int, fixed: int) -> list[Message]:
        """All objects of a kind, whose fixed part has `fixed` bytes."""
        self._send(kind, NLM_F_REQUEST | NLM_F_DUMP, bytes(fixed))
        return [Message(payload, fixed) for payload in self._answers()]

    def _send(self, kind: int, flags: int, payload: bytes) -> None:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(payload), kind, flags, self._sequence, 0)
        self._socket.send(header + payload)

    def _answers(self) -> Iterator[bytes]:
        """The payloads until the last. Raises the error that the kernel answers with."""
        while True:
            data = self._socket.recv(1 << 16)
            while len(data) >= _HEADER.size:
                length, kind, _, sequence, _ = _HEADER.unpack_from(data)
                payload, data = data[_HEADER.size : length], data[(length + 3) & ~3 :]
                if sequence != self._sequence:
                    continue
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    number = -int.from_bytes(payload[:4], "little", signed=True)
                    if kind == NLMSG_ERROR and number:
                        raise OSError(number, os.strerror(number))
                    return
                yield payload


def kernel_error(action: str, error: OSError) -> KernelError:
    """`error` with what could not be done."""
    reason = "there is no such interface" if error.errno == errno.ENODEV else error.strerror
    return KernelError(f"cannot {action}: {reason}", error.errno or 0)
