"""Messages of the domain name system (RFC 1035), as far as answering for containers takes it.

What is read comes from a container: whatever it is, the result is a question or None.
"""

from __future__ import annotations

import struct

from wherry.network.ip import show_address
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

A, PTR, AAAA, ANY = 1, 12, 28, 255
_IN = 1
SERVER_FAILURE = 2

_HEADER = struct.Struct(">HHHHHH")
_RESPONSE, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x0100, 0x0080
_TRUNCATED = 0x0200
_OPT = 41
# The largest datagram for who does not say more (RFC 1035, 4.2.1).
_SMALL = 512
_OPCODE = 0x7800
# The name of the question, for answers to point to.
_POINTER = b"\xc0\x0c"
_TTL = 600


@value
class Question:
    """The one question of a query."""

    id: int
    flags: int
    name: str  # in small letters, without the dot at its end
    kind: int
    wire: bytes  # as it was asked
    room: int  # the largest datagram that who asks takes


def read_question(message: bytes) -> Question | None:
    """The question of a query; None for what is no query that we answer."""
    if len(message) < _HEADER.size:
        return None
    number, flags, questions, _, _, additional = _HEADER.unpack_from(message)
    if flags & (_RESPONSE | _OPCODE) or questions != 1:
        return None
    labels, at = [], _HEADER.size
    while True:
        if at >= len(message):
            return None
        length = message[at]
        at += 1
        if not length:
            break
        if length > 63 or at + length > len(message):
            return None
        labels.append(message[at : at + length].decode("latin-1").lower())
        at += length
    if at + 4 > len(message):
        return None
    kind, kind_of_class = struct.unpack_from(">HH", message, at)
    if kind_of_class != _IN:
        return None
    return Question(
        id=number,
        flags=flags,
        name=".".join(labels),
        kind=kind,
        wire=message[12 : at + 4],
        room=_room(message[at + 4 :]) if additional else _SMALL,
    )


def _room(additional: bytes) -> int:
    """What the record says that comes with a question (RFC 6891: OPT, of the root)."""
    if len(additional) < 5 or additional[0]:
        return _SMALL
    kind, size = struct.unpack_from(">HH", additional, 1)
    return max(_SMALL, size) if kind == _OPT else _SMALL


def answer(
    question: Question, records: Iterable[tuple[int, bytes]], code: int = 0, *, whole: bool = True
) -> bytes:
    """A response: `records` are (type, content) of the question's name.

    Where it need not be `whole` it fits into a datagram, and says so if there is more.
    """
    listed = [
        _POINTER + struct.pack(">HHIH", kind, _IN, _TTL, len(content)) + content
        for kind, content in records
    ]
    flags = _RESPONSE | _RECURSION_AVAILABLE | question.flags & _RECURSION_DESIRED | code
    size = _HEADER.size + len(question.wire) + sum(map(len, listed))
    while not whole and size > question.room:
        flags |= _TRUNCATED
        size -= len(listed.pop())
    return _HEADER.pack(question.id, flags, 1, len(listed), 0, 0) + question.wire + b"".join(listed)


def domain(name: str) -> bytes:
    """A name, as it is in a message."""
    labels = [label.encode()[:63] for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def address_of(name: str) -> str | None:
    """The address that a name of `in-addr.arpa` or `ip6.arpa` stands for."""
    try:
        if name.endswith(".in-addr.arpa"):
            parts = [int(part) for part in name.split(".")[:-2]][::-1]
            return show_address(4, int.from_bytes(bytes(parts), "big")) if len(parts) == 4 else None
        if name.endswith(".ip6.arpa"):
            digits = "".join(name.split(".")[:-2][::-1])
            return show_address(6, int(digits, 16)) if len(digits) == 32 else None
    except ValueError:
        pass
    return None
