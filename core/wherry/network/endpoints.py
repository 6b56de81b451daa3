"""What a container has on a network: docker's EndpointSettings, and what makes them true."""

from __future__ import annotations

import os

from wherry.network import leases
from wherry.network.ip import packed, read_subnet
from wherry.network.store import (
    ICC_OPTION,
    MASQUERADE_OPTION,
    MTU_OPTION,
    bridge_name,
    is_true,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.container.store import Container
    from wherry.network.store import Record

    Endpoint = dict[str, Any]


_KEYS = {
    4: ("IPAddress", "IPPrefixLen", "Gateway"),
    6: ("GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPv6Gateway"),
}


def bridge_of(record: Record) -> dict[str, Any]:
    """What the kernel is asked to make of a network."""
    configs = record["IPAM"]["Config"]
    parsed = [(config, read_subnet(config["Subnet"])) for config in configs]
    return {
        "Bridge": bridge_name(record),
        "Gateways": [(config["Gateway"], subnet.length) for config, subnet in parsed],
        "MacAddress": _mac(configs[0]["Gateway"]),
        "HasIPv6": any(subnet.version == 6 for _, subnet in parsed),
        "Mtu": int(record["Options"].get(MTU_OPTION) or 0),
        "Internal": bool(record["Internal"]),
        "Masquerade": is_true(record, MASQUERADE_OPTION),
        "AmongThem": is_true(record, ICC_OPTION),
    }


def join(
    container: Container, record: Record, settings: Mapping[str, Any], interface: str
) -> Endpoint:
    """Lease a container's place on a network."""
    asked = settings.get("IPAMConfig") or {}
    bridge = bridge_of(record)

    def complete(addresses: dict[str, str]) -> Endpoint:
        return _endpoint(container, record, settings, interface, bridge, addresses)

    return leases.lease(record, container.id, asked, complete)


def _endpoint(
    container: Container,
    record: Record,
    settings: Mapping[str, Any],
    interface: str,
    bridge: Mapping[str, Any],
    addresses: Mapping[str, str],
) -> Endpoint:
    endpoint_id = os.urandom(32).hex()
    endpoint: Endpoint = {
        "IPAMConfig": settings.get("IPAMConfig"),
        "Links": settings.get("Links"),
        "Aliases": settings.get("Aliases"),
        "MacAddress": settings.get("MacAddress") or _mac(_main_address(addresses)),
        "DriverOpts": settings.get("DriverOpts"),
        "GwPriority": settings.get("GwPriority") or 0,
        "NetworkID": record["Id"],
        "EndpointID": endpoint_id,
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": names(container, settings) if record["Name"] != "bridge" else None,
        "Network": record["Name"],
        "Container": container.name,
        "Wherry": {
            "Bridge": bridge["Bridge"],
            "Link": f"wherry{endpoint_id[:9]}",
            "Interface": interface,
            "Mtu": bridge["Mtu"],
            "Internal": bridge["Internal"],
            "DefaultRoute": False,
        },
    }
    for config in record["IPAM"]["Config"]:
        subnet = read_subnet(config["Subnet"])
        gateway = "" if record["Internal"] else config["Gateway"]
        address = addresses.get(f"IPv{subnet.version}Address")
        if address is None or not subnet.has(address):
            continue
        keys = _KEYS[subnet.version]
        endpoint.update(zip(keys, (address, subnet.length, gateway), strict=True))
    return endpoint


def names(container: Container, settings: Mapping[str, Any]) -> list[str]:
    """What others on the network call a container."""
    hostname = str(container.body.get("Hostname") or "")
    called = [container.name, *(settings.get("Aliases") or ()), container.id[:12], hostname]
    return [name for name in dict.fromkeys(called) if name]


def _main_address(addresses: Mapping[str, str]) -> str:
    return addresses.get("IPv4Address") or addresses["IPv6Address"]


def _mac(address: str) -> str:
    """A hardware address that goes with an IP address: no neighbour's cache is ever wrong."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in packed(address)[-4:])


def choose_default_route(endpoints: Sequence[Endpoint]) -> None:
    """Let one of the endpoints be the way out, as docker chooses it."""
    candidates = [each for each in endpoints if each["Gateway"] or each["IPv6Gateway"]]
    candidates.sort(key=lambda each: (-each["GwPriority"], each["Network"]))
    for each in endpoints:
        each["Wherry"]["DefaultRoute"] = bool(candidates) and each is candidates[0]


def shown(endpoint: Endpoint) -> dict[str, Any]:
    """The part of an endpoint that docker's documents have."""
    hidden = ("Network", "Container", "Wherry")
    return {key: each for key, each in endpoint.items() if key not in hidden}
