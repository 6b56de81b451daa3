"""nf_tables, as messages: tables, chains, rules, sets and their elements.

The numbers are those of linux/netfilter/nf_tables.h. A rule is a list of expressions, each
of which loads something into a register, compares a register, or decides. A register of 16
bytes is also four of 4 bytes: keys of several fields are laid out in those.
"""

from __future__ import annotations

import struct

from wherry_linux.network.netlink import (
    NETLINK_NETFILTER,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    Connection,
    attribute,
    nested,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wherry_linux.network.netlink import Request

INET = 1  # NFPROTO_INET
IPV4 = 2
IPV6 = 10

_SUBSYSTEM = 10 << 8
_BATCH_BEGIN = 0x10
_BATCH_END = 0x11
(
    _NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _, _, _NEWRULE, _, _, _NEWSET, _, _,
    _NEWSETELEM, _GETSETELEM, _DELSETELEM,
) = range(15)  # fmt: skip

_SET_INTERVAL, _SET_MAP = 0x4, 0x8
_INTERVAL_END = 1
_LIST_ELEM = 1
_DATA_VALUE = 1
_DATA_VERDICT = 2

# Hooks, and the usual priorities at them.
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
RAW, MANGLE, DSTNAT, FILTER, SRCNAT = -300, -150, -100, 0, 100

# The types of a set's fields, and how many bytes they take in registers. The kernel only
# hands the types on; nft(8) shows elements by them.
IFNAME, IPV4_ADDRESS, IPV6_ADDRESS, PROTOCOL, PORT = (41, 16), (7, 4), (8, 16), (12, 4), (13, 4)

# For nft(8), which would show the names of interfaces from back to front: a set's key is in
# the host's order of bytes (libnftnl's NFTNL_UDATA_SET_KEYBYTEORDER).
_NOT_SWAPPED = struct.pack("=BBI", 0, 4, 1)

DROP, ACCEPT = 0, 1

# The first register of 4 bytes; those of 16 are 1 to 4, and 1 begins where this one does.
_FIRST = 8


def register(at: int) -> int:
    """The register of 4 bytes that is `at` bytes from the first."""
    return _FIRST + at // 4


def open_firewall() -> Connection:
    return Connection(protocol=NETLINK_NETFILTER)


def commit(connection: Connection, requests: Sequence[Request]) -> None:
    """Make changes, all or none. Raises OSError."""
    begin = (_BATCH_BEGIN, 0, _header(0, 10))
    end = (_BATCH_END, 0, _header(0, 10))
    connection.transact(begin, requests, end)


def _header(family: int, resource: int = 0) -> bytes:
    return struct.pack(">BBH", family, 0, resource)  # struct nfgenmsg


def _number(kind: int, number: int) -> bytes:
    return attribute(kind, struct.pack(">i" if number < 0 else ">I", number))


def _request(command: int, flags: int, *content: bytes) -> Request:
    return _SUBSYSTEM | command, flags, _header(INET) + b"".join(content)


# ---- tables, chains, sets ----


def table(name: str) -> Request:
    """Make a table, unless there is one."""
    return _request(_NEWTABLE, NLM_F_CREATE, text(1, name))


def remove_table(name: str) -> Request:
    return _request(_DELTABLE, 0, text(1, name))


def has_table(connection: Connection, name: str) -> bool:
    """Whether there is such a table. Raises OSError."""
    kind, _, payload = _request(_GETTABLE, 0, text(1, name))
    return connection.get(kind, payload, 4) is not None


def chain(table: str, name: str, kind: str, hook: int, priority: int) -> Request:
    """A chain of a hook; what no rule of it decides is let through."""
    return _request(
        _NEWCHAIN,
        NLM_F_CREATE,
        text(1, table),
        text(3, name),
        nested(4, _number(1, hook), _number(2, priority)),
        _number(5, ACCEPT),
        text(7, kind),
    )


def rule(table: str, chain: str, *expressions: bytes) -> Request:
    elements = (attribute(_LIST_ELEM | 0x8000, each) for each in expressions)
    return _request(
        _NEWRULE, NLM_F_CREATE | NLM_F_APPEND, text(1, table), text(2, chain), nested(4, *elements)
    )


def new_set(
    table: str,
    name: str,
    number: int,
    key: Sequence[tuple[int, int]],
    data: Sequence[tuple[int, int]] = (),
    *,
    ranges: bool = False,
) -> Request:
    """A set, or with `data` a map; `number` tells it from others of the same transaction."""
    flags = (_SET_MAP if data else 0) | (_SET_INTERVAL if ranges else 0)
    content = [text(1, table), text(2, name), _number(3, flags)]
    content += [_number(4, _type(key)), _number(5, _length(key))]
    if data:
        content += [_number(6, _type(data)), _number(7, _length(data))]
    if key == [IFNAME]:
        content.append(attribute(13, _NOT_SWAPPED))
    return _request(_NEWSET, NLM_F_CREATE | NLM_F_EXCL, *content, _number(10, number))


def _type(fields: Iterable[tuple[int, int]]) -> int:
    number = 0
    for kind, _ in fields:
        number = number << 6 | kind
    return number


def _length(fields: Iterable[tuple[int, int]]) -> int:
    return sum(size for _, size in fields)


def add_elements(table: str, name: str, elements: Iterable[tuple[bytes, bytes]]) -> Request:
    """Put elements, each a key and its data, into a set. One that is there already may stay."""
    return _request(_NEWSETELEM, NLM_F_CREATE, *_elements(table, name, elements))


def add_range(table: str, name: str, first: bytes, end: bytes) -> Request:
    """Put all keys from `first` to the one before `end` into a set of ranges."""
    return _request(_NEWSETELEM, NLM_F_CREATE, *_bounds(table, name, first, end))


def remove_range(table: str, name: str, first: bytes, end: bytes) -> Request:
    return _request(_DELSETELEM, 0, *_bounds(table, name, first, end))


def _bounds(table: str, name: str, first: bytes, end: bytes) -> list[bytes]:
    bounds = [
        nested(_LIST_ELEM, nested(1, attribute(_DATA_VALUE, first))),
        nested(_LIST_ELEM, _number(3, _INTERVAL_END), nested(1, attribute(_DATA_VALUE, end))),
    ]
    return [text(1, table), text(2, name), nested(3, *bounds)]


def remove_element(table: str, name: str, key: bytes) -> Request:
    return _request(_DELSETELEM, 0, *_elements(table, name, [(key, b"")]))


def has_element(connection: Connection, table: str, name: str, key: bytes) -> bool:
    """Whether there are that table and set, and this in it. Raises OSError."""
    kind, _, payload = _request(_GETSETELEM, 0, *_elements(table, name, [(key, b"")]))
    return connection.get(kind, payload, 4) is not None


def has_elements(connection: Connection, table: str, name: str) -> bool:
    """Whether a set holds anything. Raises OSError."""
    payload = _header(INET) + text(1, table) + text(2, name)
    answers = connection.ask(_SUBSYSTEM | _GETSETELEM, NLM_F_DUMP, payload, 4)
    return any(answer.attributes.get(3) for answer in answers)


def _elements(table: str, name: str, elements: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    listed = [
        nested(
            _LIST_ELEM,
            nested(1, attribute(_DATA_VALUE, key)),
            *([nested(2, attribute(_DATA_VALUE, data))] if data else []),
        )
        for key, data in elements
    ]
    return [text(1, table), text(2, name), nested(3, *listed)]


def ifname(name: str) -> bytes:
    """The name of an interface, as a field of a key."""
    return name.encode().ljust(16, b"\0")


# ---- expressions ----


def _expression(name: str, *content: bytes) -> bytes:
    return text(1, name) + nested(2, *content)


_META = {"mark": 3, "iifname": 6, "oifname": 7, "nfproto": 15, "l4proto": 16}


def meta(key: str, to: int = 1) -> bytes:
    """Load what is known of a packet beside its content."""
    return _expression("meta", _number(1, to), _number(2, _META[key]))


def set_mark(at: int = 1) -> bytes:
    """Mark a packet with what a register holds; rules of routing go by that."""
    return _expression("meta", _number(2, _META["mark"]), _number(3, at))


def is_of_transparent_socket() -> tuple[bytes, bytes]:
    """Go on only where a socket of this host has taken the address that a packet goes to."""
    return _expression("socket", _number(1, 0), _number(2, 1)), equal(b"\1")


def _payload(base: int, offset: int, length: int, to: int) -> bytes:
    fields = (to, base, offset, length)
    return _expression("payload", *(_number(kind, each) for kind, each in enumerate(fields, 1)))


def source(version: int, to: int = 1) -> bytes:
    """Load the address that a packet comes from."""
    return _payload(1, 12, 4, to) if version == IPV4 else _payload(1, 8, 16, to)


def destination(version: int, to: int = 1) -> bytes:
    """Load the address that a packet goes to."""
    return _payload(1, 16, 4, to) if version == IPV4 else _payload(1, 24, 16, to)


def destination_port(to: int) -> bytes:
    return _payload(2, 2, 2, to)


def masked(mask: bytes, at: int = 1) -> bytes:
    """Keep some bits of a register."""
    length = len(mask)
    return _expression(
        "bitwise",
        _number(1, at),
        _number(2, at),
        _number(3, length),
        nested(4, attribute(_DATA_VALUE, mask)),
        nested(5, attribute(_DATA_VALUE, bytes(length))),
    )


def equal(content: bytes, at: int = 1) -> bytes:
    """Go on only where a register holds `content`."""
    return _compare(0, content, at)


def unequal(content: bytes, at: int = 1) -> bytes:
    return _compare(1, content, at)


def _compare(operation: int, content: bytes, at: int) -> bytes:
    value = nested(3, attribute(_DATA_VALUE, content))
    return _expression("cmp", _number(1, at), _number(2, operation), value)


def load(content: bytes, to: int = 1) -> bytes:
    return _expression("immediate", _number(1, to), nested(2, attribute(_DATA_VALUE, content)))


def among(name: str, number: int, *, invert: bool = False) -> bytes:
    """Go on only where the set has (or has not) what the first registers hold."""
    flags = _number(5, 1) if invert else b""
    return _expression("lookup", text(1, name), _number(2, 1), _number(4, number), flags)


def mapped(name: str, number: int) -> bytes:
    """Replace what the first registers hold by what the map has for it, or stop."""
    return _expression("lookup", text(1, name), _number(2, 1), _number(3, 1), _number(4, number))


_CT = {"state": 0, "status": 2}
ESTABLISHED, RELATED = 2, 4
IS_DNAT = 0x20


def connection_has(key: str, bits: int) -> tuple[bytes, bytes, bytes]:
    """Go on only where conntrack's state or status has one of these bits."""
    loaded = _expression("ct", _number(1, 1), _number(2, _CT[key]))
    return loaded, masked(struct.pack("=I", bits)), unequal(bytes(4))


def is_local(to: int = 1) -> tuple[bytes, bytes]:
    """Go on only where a packet is for this host (fib daddr type local)."""
    loaded = _expression("fib", _number(1, to), _number(2, 3), _number(3, 2))
    return loaded, equal(struct.pack("=I", 2), to)


def verdict(code: int) -> bytes:
    inner = nested(2, nested(_DATA_VERDICT, _number(1, code)))
    return _expression("immediate", _number(1, 0), inner)


def masquerade() -> bytes:
    return _expression("masq")


def destination_nat(version: int) -> bytes:
    """Send a packet to the address in the first registers, and the port that follows it."""
    port = register(4 if version == IPV4 else 16)
    return _expression("nat", _number(1, 1), _number(2, version), _number(3, 1), _number(5, port))
