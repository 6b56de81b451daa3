"""What there is in nf_tables, anybody's: looked at, never changed."""

from __future__ import annotations

import struct

from wherry.values import value
from wherry_linux.network.netlink import attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry_linux.network.netlink import Connection, Message

# linux/netfilter/nf_tables.h
_GETCHAIN = 10 << 8 | 4
_GETRULE = 10 << 8 | 7


@value
class Chain:
    """A chain of a hook, anybody's."""

    family: int
    table: str
    name: str
    policy: int
    beside: frozenset[str]  # all chains of its table


def chains_at(connection: Connection, hook: int) -> list[Chain]:
    """Every chain of a hook, of every family that has it by that number. Raises OSError."""
    found = connection.dump(_GETCHAIN, 4)
    names: dict[tuple[int, str], set[str]] = {}
    for each in found:
        names.setdefault(_place(each), set()).add(_text(each, 3))
    return [
        Chain(
            family=each.fixed[0],
            table=_text(each, 1),
            name=_text(each, 3),
            policy=int.from_bytes(each.attributes.get(5, b""), "big"),
            beside=frozenset(names[_place(each)]),
        )
        for each in found
        if 4 in each.attributes and attributes(each.attributes[4])[1] == struct.pack(">I", hook)
    ]


def tables_naming(connection: Connection, word: bytes) -> set[tuple[int, str]]:
    """The tables, by family and name, with a rule that compares something with `word`."""
    rules = connection.dump(_GETRULE, 4)
    return {_place(each) for each in rules if word in each.attributes.get(4, b"")}


def _place(message: Message) -> tuple[int, str]:
    return message.fixed[0], _text(message, 1)


def _text(message: Message, kind: int) -> str:
    return message.attributes.get(kind, b"").rstrip(b"\0").decode(errors="replace")
