"""Bridges, veth pairs, addresses and routes: rtnetlink(7) as messages.

A function makes a request for `netlink.Connection.send`, so that what belongs together
goes to the kernel in one system call.
"""

from __future__ import annotations

import struct

from wherry.lean import sockets
from wherry.network.ip import packed
from wherry_linux.network.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    attribute,
    nested,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry_linux.network.netlink import Connection, Request

# linux/rtnetlink.h
RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_GETROUTE = 26
# linux/if_link.h
IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_MASTER = 10
IFLA_LINKINFO = 18
IFLA_NET_NS_FD = 28
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_IFLA_INFO_SLAVE_KIND = 4
_IFLA_INFO_SLAVE_DATA = 5
_IFLA_BRPORT_MODE = 4
_VETH_INFO_PEER = 1
# linux/if_addr.h
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
IFA_LABEL = 3
_IFA_BROADCAST = 4
IFA_CACHEINFO = 6
IFA_FLAGS = 8
_IFA_F_NODAD = 0x02
# linux/rtnetlink.h
RTA_DST = 1
RTA_OIF = 4
_RTA_GATEWAY = 5
_RT_TABLE_MAIN = 254
_RTPROT_BOOT = 3
_RT_SCOPE_HOST = 254
_RTN_UNICAST = 1
_RTN_LOCAL = 2
# linux/fib_rules.h
_RTM_NEWRULE = 32
_FRA_FWMARK = 10
_FR_ACT_TO_TBL = 1

LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
IFF_UP = 1

_NEW = NLM_F_CREATE | NLM_F_EXCL


def find(route: Connection, name: str) -> int:
    """The number of an interface. Raises OSError."""
    wanted = LINK.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name)
    [found] = route.ask(RTM_GETLINK, NLM_F_ACK, wanted, LINK.size)
    return int(LINK.unpack(found.fixed)[2])


def bridge(name: str, mac: str, mtu: int = 0) -> Request:
    """Make a bridge, and raise it.

    Without an address of its own it would have that of one of its ports, which come and go.
    """
    return (
        RTM_NEWLINK,
        _NEW,
        LINK.pack(0, 0, 0, IFF_UP, IFF_UP)
        + text(IFLA_IFNAME, name)
        + _hardware_address(mac)
        + _size(mtu)
        + nested(IFLA_LINKINFO, text(_IFLA_INFO_KIND, "bridge")),
    )


def veth(name: str, master: int, peer: str, mac: str, namespace: int, mtu: int = 0) -> Request:
    """Make a pair: `name` as a port of the bridge `master`, `peer` in another namespace."""
    other = (
        LINK.pack(0, 0, 0, 0, 0)
        + text(IFLA_IFNAME, peer)
        + _hardware_address(mac)
        + _size(mtu)
        + attribute(IFLA_NET_NS_FD, struct.pack("=I", namespace))
    )
    return (
        RTM_NEWLINK,
        _NEW,
        LINK.pack(0, 0, 0, IFF_UP, IFF_UP)
        + text(IFLA_IFNAME, name)
        + _size(mtu)
        + attribute(IFLA_MASTER, struct.pack("=I", master))
        + nested(
            IFLA_LINKINFO,
            text(_IFLA_INFO_KIND, "veth"),
            nested(_IFLA_INFO_DATA, nested(_VETH_INFO_PEER, other)),
        ),
    )


def reflect(name: str) -> Request:
    """Let a port of a bridge send back what came in by it: who asks himself by way of NAT.

    Where the firewall sees bridged packets (br_netfilter), those are not routed.
    """
    mode = attribute(_IFLA_BRPORT_MODE, b"\1")
    return (
        RTM_NEWLINK,
        0,
        LINK.pack(0, 0, 0, 0, 0)
        + text(IFLA_IFNAME, name)
        + nested(
            IFLA_LINKINFO,
            text(_IFLA_INFO_SLAVE_KIND, "bridge"),
            nested(_IFLA_INFO_SLAVE_DATA, mode),
        ),
    )


def _hardware_address(mac: str) -> bytes:
    return attribute(IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "").replace("-", "")))


def _size(mtu: int) -> bytes:
    return attribute(IFLA_MTU, struct.pack("=I", mtu)) if mtu else b""


def raise_link(index: int) -> Request:
    return RTM_NEWLINK, 0, LINK.pack(0, 0, index, IFF_UP, IFF_UP)


def remove_link(name: str) -> Request:
    """Remove a link; of a pair, the other end goes as well."""
    return RTM_DELLINK, 0, LINK.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name)


def address(index: int, ip: str, length: int) -> Request:
    """Give a link an address. It is known to be nobody else's."""
    raw = packed(ip)
    version_4 = len(raw) == 4
    family = sockets.AF_INET if version_4 else sockets.AF_INET6
    payload = ADDRESS.pack(family, length, 0 if version_4 else _IFA_F_NODAD, 0, index)
    payload += attribute(_IFA_LOCAL, raw) + attribute(_IFA_ADDRESS, raw)
    if version_4 and length < 31:
        hosts = (1 << (32 - length)) - 1
        broadcast = int.from_bytes(raw, "big") | hosts
        payload += attribute(_IFA_BROADCAST, broadcast.to_bytes(4, "big"))
    return RTM_NEWADDR, _NEW, payload


def default_route(index: int, gateway: str) -> Request:
    raw = packed(gateway)
    family = sockets.AF_INET if len(raw) == 4 else sockets.AF_INET6
    fixed = ROUTE.pack(family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, 0, _RTN_UNICAST, 0)
    out = attribute(RTA_OIF, struct.pack("=I", index))
    return RTM_NEWROUTE, _NEW, fixed + attribute(_RTA_GATEWAY, raw) + out


def local_where_marked(family: int, mark: int) -> list[Request]:
    """Take every packet with a mark for one to this host, wherever it goes."""
    rule = ROUTE.pack(family, 0, 0, 0, mark, 0, 0, _FR_ACT_TO_TBL, 0)
    everything = ROUTE.pack(family, 0, 0, 0, mark, _RTPROT_BOOT, _RT_SCOPE_HOST, _RTN_LOCAL, 0)
    number, loopback = struct.pack("=I", mark), struct.pack("=I", 1)
    return [
        (_RTM_NEWRULE, _NEW, rule + attribute(_FRA_FWMARK, number)),
        (RTM_NEWROUTE, _NEW, everything + attribute(RTA_OIF, loopback)),
    ]
