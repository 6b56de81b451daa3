"""The one table of nf_tables that is ours, `inet wherry`: NAT, published ports, isolation.

Its rules are made once and never change; what changes are the elements of its sets:

    bridges       every bridge of ours
    masqueraded   those whose containers reach the world by the host's addresses
    internal      those whose containers reach nobody else
    pairs         (in, out): bridges that may forward to each other; a bridge to itself
    sources4/6    the subnets of the bridges
    ports4/6      (protocol, port of the host) -> (container's address, port)
    placed4/6     (address of the host, protocol, port) -> (container's address, port)

A set's element is added and removed by its content, so that nothing has to be remembered
of what was made, and to make it twice is to make it once. No rule of anybody else is
looked at or touched; that also means that who drops forwarded packets by a chain of his
own drops ours, for in nf_tables a packet has to please all.
"""

from __future__ import annotations

import errno
import struct

from wherry.network.ip import packed, read_address, read_subnet
from wherry_linux.network import nftables as nft
from wherry_linux.network.nftables import IPV4, IPV6

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from wherry.network.ip import Subnet
    from wherry_linux.network.netlink import Connection, Request

TABLE = "wherry"
_SETS = (
    "bridges", "masqueraded", "internal", "pairs", "ports4", "ports6", "placed4", "placed6",
    "sources4", "sources6",
)  # fmt: skip
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


def knows(bridge: str) -> bool:
    """Whether the rules are there, and `bridge` in them. Raises OSError."""
    with nft.open_firewall() as connection:
        return nft.has_element(connection, TABLE, "bridges", nft.ifname(bridge))


def ensure(bridge: str, settings: Any) -> bool:
    """Have the rules, and `bridge` known to them; whether they had to be made.

    Whoever calls keeps others from doing the same. Raises OSError where this kernel cannot.
    """
    if knows(bridge):
        return False
    with nft.open_firewall() as connection:
        is_new = not nft.has_table(connection, TABLE)
        if is_new:
            nft.commit(connection, _table())
        nft.commit(connection, _know(bridge, settings))
        return is_new


def forget(bridge: str, gateways: Iterable[tuple[str, int]]) -> None:
    """Take a bridge out of the rules; the table goes with the last."""
    with nft.open_firewall() as connection:
        name = nft.ifname(bridge)
        for ip, length in gateways:
            subnet = read_subnet(f"{ip}/{length}")
            _try(connection, nft.remove_range(TABLE, f"sources{subnet.version}", *_range(subnet)))
        for each in ("internal", "masqueraded", "pairs", "bridges"):
            key = name + name if each == "pairs" else name
            _try(connection, nft.remove_element(TABLE, each, key))
        if nft.has_table(connection, TABLE) and not nft.has_elements(connection, TABLE, "bridges"):
            _try(connection, nft.remove_table(TABLE))


def publish(targets: Sequence[dict[str, Any]]) -> None:
    """Send what comes for a port of the host to a container. Raises OSError.

    Whoever calls holds the port: what the maps may have for it is of a container that is gone.
    """
    elements = map(_element, targets)
    requests = [nft.add_elements(TABLE, name, [(key, data)]) for name, key, data in elements]
    if not requests:
        return
    with nft.open_firewall() as connection:
        try:
            nft.commit(connection, requests)
            return
        except FileExistsError:
            pass
    withdraw(targets)
    with nft.open_firewall() as connection:
        nft.commit(connection, requests)


def withdraw(targets: Iterable[dict[str, Any]]) -> None:
    """Take back what `publish` did, as far as it was done."""
    with nft.open_firewall() as connection:
        for target in targets:
            name, key, _ = _element(target)
            _try(connection, nft.remove_element(TABLE, name, key))


def _try(connection: Connection, request: Request) -> None:
    """A change that is none where what it takes away is not there."""
    try:
        nft.commit(connection, [request])
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EBUSY):
            raise


def _element(target: dict[str, Any]) -> tuple[str, bytes, bytes]:
    """The map, key and data of {"HostIp", "HostPort", "Protocol", "Address", "Port"}."""
    version, _ = read_address(target["Address"])
    protocol = struct.pack("B3x", _PROTOCOLS[target["Protocol"]])
    key = protocol + struct.pack(">H2x", int(target["HostPort"]))
    data = packed(target["Address"]) + struct.pack(">H2x", int(target["Port"]))
    place = packed(target["HostIp"])
    if any(place):
        return f"placed{version}", place + key, data
    return f"ports{version}", key, data


def redirect_names(address: str, datagrams: int, stream: int) -> None:
    """In a container's namespace: lead port 53 of an address to other ports of it."""
    requests = [
        nft.table(TABLE),
        nft.chain(TABLE, "names", "nat", nft.OUTPUT, nft.DSTNAT),
    ]
    for protocol, port in (("udp", datagrams), ("tcp", stream)):
        expressions = (
            *_IS[IPV4],
            nft.destination(IPV4),
            nft.equal(packed(address)),
            nft.meta("l4proto"),
            nft.equal(bytes([_PROTOCOLS[protocol]])),
            nft.destination_port(1),
            nft.equal(struct.pack(">H", 53)),
            nft.load(packed(address)),
            nft.load(struct.pack(">H", port), nft.register(4)),
            nft.destination_nat(IPV4),
        )
        requests.append(nft.rule(TABLE, "names", *expressions))
    with nft.open_firewall() as connection:
        if nft.has_table(connection, TABLE):
            requests.insert(0, nft.remove_table(TABLE))
        nft.commit(connection, requests)


# ---- the rules ----


def _know(bridge: str, settings: Any) -> Sequence[Request]:
    name = nft.ifname(bridge)
    requests = [nft.add_elements(TABLE, "bridges", [(name, b"")])]
    if settings["Masquerade"] and not settings["Internal"]:
        requests.append(nft.add_elements(TABLE, "masqueraded", [(name, b"")]))
    if settings["Internal"]:
        requests.append(nft.add_elements(TABLE, "internal", [(name, b"")]))
    if settings["AmongThem"]:
        requests.append(nft.add_elements(TABLE, "pairs", [(name + name, b"")]))
    for ip, length in settings["Gateways"]:
        subnet = read_subnet(f"{ip}/{length}")
        requests.append(nft.add_range(TABLE, f"sources{subnet.version}", *_range(subnet)))
    return requests


def _range(subnet: Subnet) -> tuple[bytes, bytes]:
    """The first address of a subnet, and the one that follows the last."""
    size = 4 if subnet.version == 4 else 16
    return subnet.base.to_bytes(size, "big"), (subnet.last + 1).to_bytes(size, "big")


def _table() -> Sequence[Request]:
    key = (nft.PROTOCOL, nft.PORT)
    maps = []
    for number, address in ((4, nft.IPV4_ADDRESS), (6, nft.IPV6_ADDRESS)):
        for name, fields in ((f"ports{number}", key), (f"placed{number}", (address, *key))):
            maps.append(nft.new_set(TABLE, name, _number(name), fields, (address, nft.PORT)))
    return [
        nft.table(TABLE),
        *(nft.new_set(TABLE, name, _number(name), [nft.IFNAME]) for name in _SETS[:3]),
        nft.new_set(TABLE, "pairs", _number("pairs"), [nft.IFNAME, nft.IFNAME]),
        *maps,
        nft.new_set(TABLE, "sources4", _number("sources4"), [nft.IPV4_ADDRESS], ranges=True),
        nft.new_set(TABLE, "sources6", _number("sources6"), [nft.IPV6_ADDRESS], ranges=True),
        nft.chain(TABLE, "loopback", "filter", nft.PREROUTING, nft.RAW),
        nft.chain(TABLE, "arriving", "nat", nft.PREROUTING, nft.DSTNAT),
        nft.chain(TABLE, "leaving", "nat", nft.OUTPUT, nft.DSTNAT),
        nft.chain(TABLE, "forwarded", "filter", nft.FORWARD, nft.FILTER),
        nft.chain(TABLE, "translated", "nat", nft.POSTROUTING, nft.SRCNAT),
        *_guard_loopback(),
        *_destinations("arriving"),
        *_destinations("leaving"),
        *_forwarding(),
        *_sources(),
    ]


def _number(name: str) -> int:
    return _SETS.index(name) + 1


def _in(name: str, *, invert: bool = False) -> bytes:
    return nft.among(name, _number(name), invert=invert)


_FROM, _TO = nft.meta("iifname"), nft.meta("oifname")
_IS = {version: (nft.meta("nfproto"), nft.equal(bytes([version]))) for version in (IPV4, IPV6)}
_OF_LOOPBACK = (nft.masked(b"\xff\0\0\0"), nft.equal(b"\x7f\0\0\0"))


def _guard_loopback() -> Sequence[Request]:
    """Bridges route 127.0.0.0/8, for ports published there: containers must not use that.

    Every packet comes by here: what is the cheapest to tell is looked at first.
    """
    conditions = (*_IS[IPV4], nft.destination(IPV4), *_OF_LOOPBACK, _FROM, _in("bridges"))
    return [nft.rule(TABLE, "loopback", *conditions, nft.verdict(nft.DROP))]


def _destinations(chain: str) -> Sequence[Request]:
    rules = []
    for version, size, number in ((IPV4, 4, 4), (IPV6, 16, 6)):
        own: tuple[bytes, ...] = (*_IS[version], *nft.is_local())
        if version == IPV6:
            # What comes from ::1 cannot leave the host; a relay takes it.
            own = (*own, nft.destination(version), nft.unequal(bytes(15) + b"\1"))
        for name, start in ((f"placed{number}", size), (f"ports{number}", 0)):
            key = (
                *([nft.destination(version)] if start else []),
                nft.meta("l4proto", nft.register(start)),
                nft.destination_port(nft.register(start + 4)),
            )
            there = (nft.mapped(name, _number(name)), nft.destination_nat(version))
            rules.append(nft.rule(TABLE, chain, *own, *key, *there))
    return rules


def _forwarding() -> Sequence[Request]:
    accept, drop = nft.verdict(nft.ACCEPT), nft.verdict(nft.DROP)
    known = nft.connection_has("state", nft.ESTABLISHED | nft.RELATED)
    published = nft.connection_has("status", nft.IS_DNAT)
    both = (nft.meta("iifname", 1), nft.meta("oifname", 2), _in("pairs"))
    rules = [
        (*known, accept),
        (*both, accept),
        (_FROM, _in("internal"), drop),
        (_TO, _in("internal"), drop),
        (_TO, _in("bridges"), *published, accept),
        # Neither other networks' containers nor who routes by way of this host.
        (_TO, _in("bridges"), drop),
    ]
    return [nft.rule(TABLE, "forwarded", *each) for each in rules]


def _sources() -> Sequence[Request]:
    published = nft.connection_has("status", nft.IS_DNAT)
    rules = [
        (_FROM, _in("masqueraded"), _TO, _in("bridges", invert=True)),
        # Who reaches a container by a port of the host from another, or from itself: the
        # answer has to come back this way. (A packet that br_netfilter shows comes from no
        # interface here.)
        (*_IS[IPV4], nft.source(IPV4), _in("sources4"), _TO, _in("bridges"), *published),
        (*_IS[IPV6], nft.source(IPV6), _in("sources6"), _TO, _in("bridges"), *published),
        # From the host's loopback; no container could answer to 127.0.0.1.
        (_TO, _in("bridges"), *_IS[IPV4], nft.source(IPV4), *_OF_LOOPBACK),
    ]
    return [nft.rule(TABLE, "translated", *each, nft.masquerade()) for each in rules]
