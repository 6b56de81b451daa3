"""Bridges, and containers on them: root's on the host, others' in a namespace of their own.

A network is a bridge; an endpoint is a veth pair, one end of it a port of the bridge, the
other `eth0` and so on in the container's network namespace. The pair goes with that
namespace, so that nothing of it is left when a container ends, however it ends.
"""

from __future__ import annotations

import errno
import fcntl
import os

from wherry.errors import Unsupported, WherryError
from wherry.lean import sockets
from wherry.network.ip import show_address
from wherry_linux.namespaces import open_namespace
from wherry_linux.network import firewall, links
from wherry_linux.network.entering import within
from wherry_linux.network.netlink import Connection, kernel_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry_linux.network.netlink import Request

    Endpoint = dict[str, Any]

# What the kernel answers where it has no bridges or no part of a rule, or gives us no power.
_CANNOT = (errno.EPERM, errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT)


class HostLock:
    """One process at a time changes the bridges of a network namespace.

    The lock is on the namespace itself, for several WHERRY_ROOTs may share it.
    """

    def __enter__(self) -> None:
        self._descriptor = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def ensure(bridge: Endpoint) -> bool:
    """Have a network's bridge, whatever was there; whether the firewall's rules were gone.

    Raises Unsupported where this kernel has no bridges for us.
    """
    if os.geteuid() != 0:
        raise Unsupported("only root can make networks")
    name = bridge["Bridge"]
    try:
        if _index(name) and firewall.knows(name):
            return False
        with HostLock():
            if not _index(name):
                _make(bridge)
            return firewall.ensure(name, bridge)
    except OSError as error:
        if error.errno in _CANNOT:
            raise Unsupported(f"this kernel has no bridges for us: {error.strerror}") from error
        raise kernel_error(f"make the bridge {name}", error) from error


def _make(bridge: Endpoint) -> None:
    name = bridge["Bridge"]
    _enable_forwarding(has_ipv6=bridge["HasIPv6"])
    with Connection() as route:
        try:
            route.send([links.bridge(name, bridge["MacAddress"], bridge["Mtu"])])
            index = _index(name)
            if not bridge["HasIPv6"]:
                _write(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "1")
            # For what is published at 127.0.0.1; the firewall keeps containers from using it.
            _write(f"/proc/sys/net/ipv4/conf/{name}/route_localnet", "1")
            route.send([links.address(index, ip, length) for ip, length in bridge["Gateways"]])
        except OSError:
            remove_link(name)
            raise


def _enable_forwarding(*, has_ipv6: bool) -> None:
    _write("/proc/sys/net/ipv4/ip_forward", "1")
    every = "/proc/sys/net/ipv6/conf"
    if not has_ipv6 or _read(f"{every}/all/forwarding") == "1":
        return
    # A router takes no router's advertisements, unless it is told to.
    for name in os.listdir(every):
        if name != "all" and _read(f"{every}/{name}/accept_ra") == "1":
            _write(f"{every}/{name}/accept_ra", "2")
    _write(f"{every}/all/forwarding", "1")


def remove(bridge: Endpoint) -> None:
    """Remove a bridge, and what the firewall knows of it."""
    name = bridge["Bridge"]
    with HostLock():
        try:
            firewall.forget(name, bridge["Gateways"])
        except OSError as error:
            if error.errno not in _CANNOT:
                raise kernel_error(f"remove {name}", error) from error
        remove_link(name)


def remove_link(name: str) -> None:
    try:
        with Connection() as route:
            _remove(route, name)
    except OSError as error:
        raise kernel_error(f"remove {name}", error) from error


def _remove(route: Connection, name: str) -> None:
    try:
        route.send([links.remove_link(name)])
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def attach(bridges: Connection, pid: int, endpoints: Sequence[Endpoint]) -> None:
    """Make a container's interfaces, with their addresses and the way out.

    `bridges` is a connection to where those are.
    """
    namespace = open_namespace(f"/proc/{pid}/ns/net")
    try:
        for each in endpoints:
            _join(bridges, pid, namespace, each)
        within(pid, lambda: _configure(endpoints))
    except OSError as error:
        raise WherryError(
            f"cannot connect the container to network {endpoints[0]['Network']}: {error.strerror}"
        ) from error
    finally:
        os.close(namespace)


def _join(route: Connection, pid: int, namespace: int, endpoint: Endpoint) -> None:
    settings = endpoint["Wherry"]
    pair = links.veth(
        settings["Link"],
        links.find(route, settings["Bridge"]),
        settings["Interface"],
        endpoint["MacAddress"],
        namespace,
        settings["Mtu"],
    )
    try:
        route.send([pair])
    except FileExistsError:
        # Of an earlier pair: where its other end was in a namespace that is about to go, the
        # container still has its own.
        _remove(route, settings["Link"])
        within(pid, lambda: remove_link(settings["Interface"]))
        route.send([pair])


def reflect(endpoints: Sequence[Endpoint]) -> None:
    """Let containers reach themselves by the ports that they publish."""
    try:
        with Connection() as route:
            route.send([links.reflect(each["Wherry"]["Link"]) for each in endpoints])
    except OSError as error:
        raise kernel_error("publish ports", error) from error


def _configure(endpoints: Sequence[Endpoint]) -> None:
    """Within the container's network namespace."""
    requests = []
    for each in endpoints:
        index = _index(each["Wherry"]["Interface"])
        addresses = (
            (each["IPAddress"], each["IPPrefixLen"]),
            (each["GlobalIPv6Address"], each["GlobalIPv6PrefixLen"]),
        )
        has_ipv6 = bool(each["GlobalIPv6Address"])
        if not has_ipv6:
            _write(f"/proc/sys/net/ipv6/conf/{each['Wherry']['Interface']}/disable_ipv6", "1")
        requests += [links.address(index, ip, length) for ip, length in addresses if ip]
        requests += [links.raise_link(index), *_ways_out(each)]
    with Connection() as inside:
        inside.send(requests)


def _ways_out(endpoint: Endpoint) -> list[Request]:
    if not endpoint["Wherry"]["DefaultRoute"]:
        return []
    index = _index(endpoint["Wherry"]["Interface"])
    gateways = (endpoint["Gateway"], endpoint["IPv6Gateway"])
    return [links.default_route(index, gateway) for gateway in gateways if gateway]


def route(pid: int, endpoints: Sequence[Endpoint]) -> None:
    """Give a container that has no way out that of its endpoints."""

    def add() -> None:
        with Connection() as inside:
            inside.send([request for each in endpoints for request in _ways_out(each)])

    try:
        within(pid, add)
    except OSError as error:
        raise kernel_error("set the default route", error) from error


def host_subnets() -> list[str]:
    """The subnets that this host has a way to, but for the way to everything."""
    found = set()
    with Connection() as route:
        for message in route.dump(links.RTM_GETROUTE, links.ROUTE.size):
            family, length, *_ = links.ROUTE.unpack(message.fixed)
            raw = message.attributes.get(links.RTA_DST)
            if raw is None or not length:
                continue
            version = {sockets.AF_INET: 4, sockets.AF_INET6: 6}.get(family)
            if version is None or raw[0] in (127, 0xFE, 0xFF) or raw[0] >= 224:
                continue
            found.add(f"{show_address(version, int.from_bytes(raw, 'big'))}/{length}")
    return sorted(found)


def _index(name: str) -> int:
    """The number of an interface; 0 if there is none."""
    try:
        return int(sockets.if_nametoindex(name))
    except OSError:
        return 0


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    """Set what the kernel may have no file for: IPv6 can be switched off."""
    if _read(path) == text:
        return
    try:
        with open(path, "w") as file:
            file.write(text)
    except FileNotFoundError:
        pass
