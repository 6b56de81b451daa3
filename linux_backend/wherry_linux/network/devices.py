"""runtime-spec `linux.netDevices`: interfaces of the host that become the container's."""

from __future__ import annotations

import os
import struct

from wherry.errors import Conflict
from wherry.lean import sockets
from wherry_linux.namespaces import open_namespace
from wherry_linux.network import links, netlink
from wherry_linux.network.entering import connection_within
from wherry_linux.network.netlink import Connection, attribute, kernel_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from wherry.oci.runtime_spec import LinuxNetDevice

_IFA_F_PERMANENT = 0x80
_IFA_STATES = 0x48  # tentative, found to be another's
_OF_THE_OLD_PLACE = (links.IFA_CACHEINFO, links.IFA_FLAGS, links.IFA_LABEL)
_RT_SCOPE_UNIVERSE = 0


def check_name(name: str) -> bool:
    """Whether the kernel takes `name` for an interface (dev_valid_name)."""
    return (
        0 < len(name.encode()) < 16
        and name not in (".", "..")
        and not any(character.isspace() or character in "/:" for character in name)
    )


def move_devices(devices: Mapping[str, LinuxNetDevice], pid: int) -> None:
    """Move interfaces into the network namespace of process `pid`, and raise them there.

    They keep their addresses, but for those that the kernel makes itself. Raises what kept
    one from being moved; those before it are moved then.
    """
    namespace = open_namespace(f"/proc/{pid}/ns/net")
    host = Connection()
    inside = connection_within(pid)
    try:
        for name, device in devices.items():
            _move(host, inside, namespace, name, device.get("name") or name)
    finally:
        inside.close()
        host.close()
        os.close(namespace)


def _move(host: Connection, inside: Connection, namespace: int, name: str, new_name: str) -> None:
    try:
        index = sockets.if_nametoindex(name)
    except OSError as error:
        raise kernel_error(f"move network device {name}", error) from error
    before = _links(inside)
    if new_name in before:
        raise Conflict(
            f"cannot move network device {name}: the container has a device {new_name} already"
        )
    addresses = _permanent_addresses(host, index)
    try:
        host.request(
            links.RTM_NEWLINK,
            links.LINK.pack(0, 0, index, 0, 0)
            + attribute(links.IFLA_IFNAME, new_name.encode() + b"\0")
            + attribute(links.IFLA_NET_NS_FD, struct.pack("=I", namespace)),
        )
        # "eth%d" is a name that the kernel completes.
        [index] = [number for key, number in _links(inside).items() if key not in before]
        for address in addresses:
            flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
            inside.request(links.RTM_NEWADDR, _with_index(address, index), flags)
        inside.request(links.RTM_NEWLINK, links.LINK.pack(0, 0, index, links.IFF_UP, links.IFF_UP))
    except OSError as error:
        raise kernel_error(f"move network device {name} to {new_name}", error) from error


def _links(route: Connection) -> dict[str, int]:
    """The interfaces by name."""
    return {
        message.attributes[links.IFLA_IFNAME].rstrip(b"\0").decode(): links.LINK.unpack(
            message.fixed
        )[2]
        for message in route.dump(links.RTM_GETLINK, links.LINK.size)
    }


def _permanent_addresses(route: Connection, index: int) -> list[bytes]:
    """The addresses that somebody gave the interface, as requests to give them to another."""
    found = []
    for message in route.dump(links.RTM_GETADDR, links.ADDRESS.size):
        family, prefix, _, scope, of_link = links.ADDRESS.unpack(message.fixed)
        flags = int.from_bytes(message.attributes.get(links.IFA_FLAGS, b""), "little")
        if of_link != index or scope != _RT_SCOPE_UNIVERSE or not flags & _IFA_F_PERMANENT:
            continue
        attributes = b"".join(
            attribute(kind, content)
            for kind, content in message.attributes.items()
            if kind not in _OF_THE_OLD_PLACE
        )
        attributes += attribute(links.IFA_FLAGS, struct.pack("=I", flags & ~_IFA_STATES))
        found.append(links.ADDRESS.pack(family, prefix, flags & 0x3F, scope, 0) + attributes)
    return found


def _with_index(address: bytes, index: int) -> bytes:
    return (
        address[: links.ADDRESS.size - 4] + struct.pack("=I", index) + address[links.ADDRESS.size :]
    )
