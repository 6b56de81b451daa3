"""Who is on a network at this moment, and with which addresses.

    RUN/networks/<network id>/<container id>,<IPv4>,<IPv6>

The name of an entry says which addresses are in use, so that one look at the directory is
enough to choose a free one; the content is the container's endpoint, with the names that
others find it by. The directory is a lock while one is chosen. An entry counts as long as
RUN has a directory of its container: what a crash leaves is no lease any more.
"""

from __future__ import annotations

import os

from wherry import paths
from wherry.errors import Conflict, CorruptState, NotFound, UsageError
from wherry.files import Lock, make_dir, read_json, remove_file, write_json
from wherry.network.ip import read_address, read_subnet, show_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from wherry.network.store import Record

    Endpoint = dict[str, Any]


def directory(network_id: str) -> str:
    return os.path.join(paths.run(), "networks", network_id)


def lease(
    network: Record,
    container_id: str,
    wanted: Mapping[str, str],
    complete: Callable[[dict[str, str]], Endpoint],
) -> Endpoint:
    """Choose a container's addresses on a network, and note what `complete` makes of them.

    `wanted` may name an IPv4Address and an IPv6Address. Raises Conflict, UsageError.
    """
    make_dir(os.path.join(paths.run(), "networks"), 0o711)
    place = make_dir(directory(network["Id"]), 0o711)
    with Lock(place):
        used = {
            address
            for name in _entries(place, sweep=True)
            if name.partition(",")[0] != container_id
            for address in name.split(",")[1:]
        }
        _take_back(place, container_id)
        chosen = {}
        for key, version in (("IPv4Address", 4), ("IPv6Address", 6)):
            if address := _choose(network, version, wanted.get(key) or "", used, place):
                chosen[key] = address
        endpoint = complete(chosen)
        rewrite(container_id, endpoint)
    return endpoint


def rewrite(container_id: str, endpoint: Endpoint) -> None:
    """Note an endpoint, in place of what was noted of it."""
    name = f"{container_id},{endpoint['IPAddress']},{endpoint['GlobalIPv6Address']}"
    write_json(os.path.join(directory(endpoint["NetworkID"]), name), endpoint)


def release(network_id: str, container_id: str) -> None:
    """Give a container's addresses back."""
    _take_back(directory(network_id), container_id)


def endpoints(network_id: str) -> dict[str, Endpoint]:
    """The endpoints on a network by their containers' ids."""
    found = {}
    place = directory(network_id)
    for name in sorted(_entries(place)):
        try:
            found[name.partition(",")[0]] = read_json(os.path.join(place, name))
        except (FileNotFoundError, CorruptState):
            continue  # gone at this moment
    return found


def forget(network_id: str) -> None:
    """Remove what is kept of a network that is gone."""
    place = directory(network_id)
    try:
        for name in os.listdir(place):
            remove_file(os.path.join(place, name))
        os.rmdir(place)
    except OSError:
        pass


def _entries(place: str, *, sweep: bool = False) -> list[str]:
    try:
        names = os.listdir(place)
    except FileNotFoundError:
        return []
    kept = []
    for name in names:
        container_id, comma, _ = name.partition(",")
        if not comma or name.endswith(".tmp"):
            continue  # it is being written
        if os.path.isdir(paths.run_container(container_id)):
            kept.append(name)
        elif sweep:
            remove_file(os.path.join(place, name))
    return kept


def _take_back(place: str, container_id: str) -> None:
    try:
        names = os.listdir(place)
    except FileNotFoundError:
        return
    for name in names:
        if name.startswith(f"{container_id},"):
            remove_file(os.path.join(place, name))


def _choose(network: Record, version: int, wanted: str, used: set[str], place: str) -> str:
    """An address that is free; after the last, for who had one may be on his way out still."""
    configs = [
        config
        for config in network["IPAM"]["Config"]
        if read_subnet(config["Subnet"]).version == version
    ]
    if wanted:
        return _check_wanted(configs, show_address(*read_address(wanted)), used)
    if not configs:
        return ""
    last = _last(place, version)
    for config in configs:
        reserved = {config.get("Gateway"), *(config.get("AuxiliaryAddresses") or {}).values()}
        for number in _after(last, _pool(config)):
            address = show_address(version, number)
            if address not in used and address not in reserved:
                _note_last(place, version, number)
                return address
    raise Conflict(
        f"no available IPv{version} addresses on this network's address pools:"
        f" {network['Name']} ({network['Id']})"
    )


def _pool(config: dict[str, Any]) -> range:
    subnet = read_subnet(config["Subnet"])
    if not config.get("IPRange"):
        return subnet.hosts()
    part, hosts = read_subnet(config["IPRange"]), subnet.hosts()
    return range(max(part.base, hosts.start), min(part.last + 1, hosts.stop))


def _after(last: int, pool: range) -> Iterator[int]:
    """All of a pool, from the one that follows `last` on."""
    start = last + 1 if last in pool else pool.start
    yield from range(start, pool.stop)
    yield from range(pool.start, start)


def _last(place: str, version: int) -> int:
    try:
        return int(os.readlink(os.path.join(place, f"last{version}")))
    except (OSError, ValueError):
        return -1


def _note_last(place: str, version: int, number: int) -> None:
    link = os.path.join(place, f"last{version}")
    remove_file(link)
    os.symlink(str(number), link)


def _check_wanted(configs: list[dict[str, Any]], wanted: str, used: set[str]) -> str:
    for config in configs:
        subnet = read_subnet(config["Subnet"])
        if subnet.has(wanted):
            number = read_address(wanted)[1]
            if number not in subnet.hosts():
                raise UsageError(f"invalid address {wanted}: it is none of a host in {subnet.text}")
            if wanted in used or wanted == config.get("Gateway"):
                raise Conflict("Address already in use", hint=f"{wanted} is another's")
            return wanted
    raise NotFound(f"no configured subnet or ip-range contain the IP address {wanted}")
