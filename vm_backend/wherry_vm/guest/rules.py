"""The guest's own rules of nf_tables: where its host answers names, and what loopback hides.

The host reaches what listens on the guest's address. What a container with `--network host`
has on loopback alone is led there, too: on a host of its own it would be reached.

The table has two maps from (protocol, port) to (address, port), `names` and `hidden`. It is
made anew with each change, all or none.
"""

from __future__ import annotations

import struct
import sys
import threading

from wherry.network.ip import packed
from wherry_linux.network import nftables as nft
from wherry_linux.network.nftables import IPV4

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wherry_linux.network.netlink import Request

_ROUTE_LOCALNET = "/proc/sys/net/ipv4/conf/eth0/route_localnet"

_TABLE = "machine"
_NAMES, _HIDDEN = "names", "hidden"
_SETS = {_NAMES: 1, _HIDDEN: 2}
_HOST, _QEMUS_NAMES = "10.0.2.2", "10.0.2.3"
_INTERFACE = "eth0"
_NAME_PORT = 53
_PROTOCOLS = {"tcp": 6, "udp": 17}

_KEY, _PLACE = (nft.PROTOCOL, nft.PORT), (nft.IPV4_ADDRESS, nft.PORT)
_OF_IPV4 = (nft.meta("nfproto"), nft.equal(bytes([IPV4])))

_lock = threading.Lock()
_elements: dict[str, list[tuple[bytes, bytes]]] = {_NAMES: [], _HIDDEN: []}


def lead_names(port: int) -> None:
    """Have the host answer names at `port`, in the place of QEMU."""
    _replace(_NAMES, [_led(each, _NAME_PORT, _HOST, port) for each in _PROTOCOLS])
    with open(_ROUTE_LOCALNET, "w", encoding="ascii") as file:
        file.write("1")


def lead_to_loopback(places: Mapping[tuple[str, int], tuple[str, int]]) -> None:
    """Lead exactly these (protocol, port) that come from the host, each to its (address, port)."""
    _replace(_HIDDEN, [_led(*each, *place) for each, place in sorted(places.items())])


def _led(protocol: str, port: int, address: str, to: int) -> tuple[bytes, bytes]:
    """An element of a map: where what is for `port` goes."""
    key = struct.pack("B3x", _PROTOCOLS[protocol]) + struct.pack(">H2x", port)
    return key, packed(address) + struct.pack(">H2x", to)


def _replace(name: str, elements: list[tuple[bytes, bytes]]) -> None:
    with _lock:
        _elements[name] = elements
        requests = _table()
        try:
            with nft.open_firewall() as connection:
                if nft.has_table(connection, _TABLE):
                    requests.insert(0, nft.remove_table(_TABLE))
                nft.commit(connection, requests)
        except OSError as error:
            # The console has it; the guest does without.
            print(f"wherry: cannot lead {name} elsewhere: {error.strerror}", file=sys.stderr)


def _table() -> list[Request]:
    names = (nft.destination(IPV4), nft.equal(packed(_QEMUS_NAMES)), *_in(_NAMES))
    # What the guest asks goes through `output`, what its containers ask through `prerouting`.
    hidden = (nft.meta("iifname"), nft.equal(nft.ifname(_INTERFACE)), *_in(_HIDDEN))
    return [
        nft.table(_TABLE),
        *(nft.new_set(_TABLE, name, number, _KEY, _PLACE) for name, number in _SETS.items()),
        nft.chain(_TABLE, "prerouting", "nat", nft.PREROUTING, nft.DSTNAT),
        nft.chain(_TABLE, "output", "nat", nft.OUTPUT, nft.DSTNAT),
        *(nft.rule(_TABLE, chain, *_OF_IPV4, *names) for chain in ("prerouting", "output")),
        nft.rule(_TABLE, "prerouting", *_OF_IPV4, *hidden),
        *(nft.add_elements(_TABLE, name, each) for name, each in _elements.items() if each),
    ]


def _in(name: str) -> Sequence[bytes]:
    """Where the map has a packet's protocol and port, send it there."""
    return (
        nft.meta("l4proto", nft.register(0)),
        nft.destination_port(nft.register(4)),
        nft.mapped(name, _SETS[name]),
        nft.destination_nat(IPV4),
    )
