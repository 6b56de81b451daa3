"""Keeping the address of who comes by a published port, where a process carries the bytes.

A transparent socket takes an address that is not the host's: that of the client. The
container answers to it, by way of the namespace that the networks are in, where a rule
finds that a socket has it (Documentation/networking/tproxy.rst). That all happens in a
network namespace of ours.
"""

from __future__ import annotations

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


def prepare() -> bool:
    """Have answers to foreign addresses arrive; whether this kernel can do that."""
    families = [sockets.AF_INET, sockets.AF_INET6]
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
        with Connection() as route:
            route.send(
                [each for family in families for each in links.local_where_marked(family, _MARK)]
            )
    except OSError:
        return False
    return True


def let_take(socket: Any) -> None:
    """Let a socket take foreign addresses. For who has power over its network namespace."""
    try:
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
