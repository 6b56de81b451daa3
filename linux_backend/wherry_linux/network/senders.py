"""Keeping the address of who comes by a published port, where a process carries the bytes.

A transparent socket takes an address that is not the host's: that of the client. The
container answers to it, by way of the namespace that the networks are in, where a rule
finds that a socket has it (Documentation/networking/tproxy.rst). That all happens in a
network namespace of ours.

For connections it is reached from within its own namespace. There the socket's packets
have a mark, with which the answers come, too: what has it does not leave.
"""

from __future__ import annotations

import os

from wherry.lean import sockets
from wherry_linux.network import links
from wherry_linux.network import nftables as nft
from wherry_linux.network.netlink import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TABLE = "wherry-senders"
_MARK = 1
# linux/in.h, linux/in6.h
_IP_TRANSPARENT = 19
_IPV6_TRANSPARENT = 75
_SO_MARK = 36
# What answers with the mark: a connection, and the kernel where nobody listens (ip-sysctl.rst).
_REFLECT: dict[int, tuple[str, ...]] = {
    sockets.AF_INET: ("ipv4/tcp_fwmark_accept", "ipv4/fwmark_reflect"),
    sockets.AF_INET6: ("ipv6/fwmark_reflect",),
}
_SYSCTL = "/proc/sys/net"


def prepare() -> bool:
    """Have answers to foreign addresses arrive; whether this kernel can do that."""
    mark = _MARK.to_bytes(4, "little")
    rule = (*nft.is_of_transparent_socket(), nft.load(mark), nft.set_mark())
    requests = [
        nft.table(_TABLE),
        nft.chain(_TABLE, "answers", "filter", nft.PREROUTING, nft.MANGLE),
        nft.rule(_TABLE, "answers", *rule),
    ]
    try:
        with nft.open_firewall() as connection:
            nft.commit(connection, requests)
        _keep_marked()
    except OSError:
        return False
    return True


def prepare_within() -> bool:
    """The same in the network namespace of a container, for connections to itself."""
    try:
        for family in _families():
            for name in _REFLECT[family]:
                with open(f"{_SYSCTL}/{name}", "w") as file:
                    file.write("1")
        _keep_marked()
    except FileExistsError:
        return True  # for a port that was published before
    except OSError:
        return False
    return True


def _keep_marked() -> None:
    """Have what is marked stay in this network namespace, whatever its address."""
    with Connection() as route:
        for family in _families():
            route.send(links.local_where_marked(family, _MARK))


def _families() -> list[int]:
    """Those that this kernel has; IPv6 may be left out of it."""
    has_ipv6 = os.path.isdir(f"{_SYSCTL}/ipv6")
    return [sockets.AF_INET, *([sockets.AF_INET6] if has_ipv6 else [])]


def let_take(socket: Any, *, marked: bool) -> None:
    """Let a socket take foreign addresses. For who has power over its network namespace."""
    try:
        if marked:
            socket.setsockopt(sockets.SOL_SOCKET, _SO_MARK, _MARK)
        if socket.family == sockets.AF_INET6:
            socket.setsockopt(sockets.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        else:
            socket.setsockopt(sockets.IPPROTO_IP, _IP_TRANSPARENT, 1)
    except OSError:
        pass  # then `take` does nothing


def take(socket: Any, sender: tuple[Any, ...]) -> None:
    """Give a socket a sender's address, if that may be: nobody answers to a loopback's."""
    address = sender[0]
    is_ipv6 = socket.family == sockets.AF_INET6
    if (":" in address) != is_ipv6 or address.startswith("127.") or address == "::1":
        return
    try:
        socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        socket.bind(sender[:2])
    except OSError:
        pass
