"""The networks there are, as files.

    DATA/networks/<name>.json   a network, in the form of docker's API
    RUN/networks/<id>/          who is on it at this moment (wherry.network.leases)

A record appears by a link(2) of a whole file, so that a name is one network's only. `host`
and `none` are no records: nothing about them can change. `bridge` is made when it is first
asked for, with a subnet that nothing on this host uses.
"""

from __future__ import annotations

import os

from wherry import paths
from wherry.errors import AccessDenied, Conflict, CorruptState, NotFound, UsageError
from wherry.files import Lock, make_dir, read_json, remove_file, write_json
from wherry.lean import sha256
from wherry.network.ip import read_subnet, show_address
from wherry.timestamps import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from wherry.network.ip import Subnet

    Record = dict[str, Any]

PREDEFINED = ("bridge", "host", "none")
_DRIVERS = {"bridge": "bridge", "host": "host", "none": "null"}
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_HEX = frozenset("0123456789abcdef")

# docker's own pools, in its order.
_POOLS = (
    *(f"172.{second}.0.0/16" for second in range(17, 32)),
    *(f"192.168.{third}.0/20" for third in range(0, 256, 16)),
)

_PREFIX = "com.docker.network."
NAME_OPTION = f"{_PREFIX}bridge.name"
MTU_OPTION = f"{_PREFIX}driver.mtu"
ICC_OPTION = f"{_PREFIX}bridge.enable_icc"
MASQUERADE_OPTION = f"{_PREFIX}bridge.enable_ip_masquerade"


class NetworkStore:
    """The networks of this user."""

    def __init__(self, taken: Callable[[], Iterable[str]]) -> None:
        """`taken` tells which subnets the host has a way to by itself."""
        self._taken = taken

    def networks(self) -> list[Record]:
        """All networks, by name."""
        self.default()
        found = [_fixed("host"), _fixed("none"), *self.recorded()]
        return sorted(found, key=lambda record: str(record["Name"]))

    def recorded(self) -> list[Record]:
        """Those with a record that can be read."""
        return [record for name in (*self._names(), "bridge") for record in self._there(name)]

    def find(self, name: str) -> Record:
        """By name, full id or unique prefix of an id. Raises NotFound, UsageError."""
        if name in ("host", "none"):
            return _fixed(name)
        if name in ("bridge", "default"):
            return self.default()
        try:
            return self._read(name)
        except NotFound:
            if not name or not _HEX.issuperset(name):
                raise
        matching = [each for each in self.networks() if each["Id"].startswith(name)]
        if not matching:
            raise NotFound(f"network {name} not found")
        if len(matching) > 1:
            raise UsageError(f"network {name} is ambiguous ({len(matching)} matches found on name)")
        return matching[0]

    def default(self) -> Record:
        """`bridge`, which is made now if it is not there."""
        try:
            return self._read("bridge")
        except NotFound:
            pass
        with self.locked():
            try:
                return self._read("bridge")
            except NotFound:
                options = {ICC_OPTION: "true", MASQUERADE_OPTION: "true", MTU_OPTION: "1500"}
                options[NAME_OPTION] = _default_bridge()
                record = _record("bridge", options=options)
                self._complete(record, ())
                return self._put(record)

    def create(
        self,
        name: str,
        *,
        subnets: Sequence[Record] = (),
        ipv6: bool = False,
        internal: bool = False,
        attachable: bool = False,
        options: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
    ) -> Record:
        """Make a network; `subnets` are docker's IPAM configs, with what was said of each."""
        if name in ("default", *PREDEFINED):
            raise AccessDenied(f"operation is not permitted on predefined {name} network")
        if not name or not _ALLOWED.issuperset(name) or not name[0].isalnum():
            raise UsageError(
                f"invalid network name {name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )
        record = _record(name, options=dict(options or {}), labels=dict(labels or {}))
        record["IPAM"]["Options"] = {}
        record.update(EnableIPv6=ipv6, Internal=internal, Attachable=attachable)
        _check_options(record["Options"])
        with self.locked():
            if name in self._names():
                raise Conflict(f"network with name {name} already exists")
            self._complete(record, subnets)
            return self._put(record)

    def remove(self, record: Record) -> None:
        self.discard(record["Name"])

    def discard(self, name: str) -> None:
        """Remove a record, whatever is in it."""
        remove_file(_path(name))

    def locked(self) -> Lock:
        """Keeps others from adding or removing networks."""
        return Lock(make_dir(paths.networks(), 0o711))

    def _names(self) -> list[str]:
        try:
            names = os.listdir(paths.networks())
        except FileNotFoundError:
            return []
        kept = [name.removesuffix(".json") for name in names if name.endswith(".json")]
        return [name for name in kept if name not in PREDEFINED]

    def _read(self, name: str) -> Record:
        if not name or not _ALLOWED.issuperset(name) or name in (".", ".."):
            raise NotFound(f"network {name} not found")
        path, hint = _path(name), f"to give the network up: wherry network rm -f {name}"
        try:
            record: Record = read_json(path)
        except FileNotFoundError:
            raise NotFound(
                f"network {name} not found", hint="`wherry network ls` lists them"
            ) from None
        except CorruptState as error:
            raise CorruptState(error.message, hint=hint) from error
        if not (
            isinstance(record, dict)
            and isinstance(record.get("Id"), str)
            and record.get("Name") == name
            and isinstance(record.get("IPAM"), dict)
            and isinstance(record.get("Options"), dict)
        ):
            raise CorruptState(f"{path} is damaged: it is no record of a network", hint=hint)
        return record

    def _put(self, record: Record) -> Record:
        write_json(_path(record["Name"]), record, promptly=True)
        return record

    # ---- subnets ----

    def _complete(self, record: Record, asked: Sequence[Record]) -> None:
        """Give a new network its subnets, those asked for and those that it needs beside."""
        used = [(each["Name"], subnet) for each in self.recorded() for subnet in subnets(each)]
        host = [read_subnet(text) for text in self._taken()]
        configs = [_checked(config, used, host) for config in asked]
        versions = {read_subnet(config["Subnet"]).version for config in configs}
        if 4 not in versions:
            taken = [*host, *(subnet for _, subnet in used)]
            configs.insert(0, _with_gateway({"Subnet": _free_pool(taken)}))
        if 6 in versions:
            record["EnableIPv6"] = True
        elif record["EnableIPv6"]:
            configs.append(_with_gateway({"Subnet": _local_subnet(record["Id"])}))
        record["IPAM"]["Config"] = configs

    def _there(self, name: str) -> list[Record]:
        try:
            return [self._read(name)]
        except (NotFound, CorruptState):
            return []


def _path(name: str) -> str:
    return os.path.join(paths.networks(), f"{name}.json")


def _fixed(name: str) -> Record:
    """`host` or `none`."""
    record = _record(name)
    record.update(Id=sha256(f"wherry {name}".encode()).hexdigest(), Created="0001-01-01T00:00:00Z")
    return record


def _record(
    name: str, *, options: dict[str, str] | None = None, labels: dict[str, str] | None = None
) -> Record:
    return {
        "Name": name,
        "Id": os.urandom(32).hex(),
        "Created": now(),
        "Scope": "local",
        "Driver": _DRIVERS.get(name, "bridge"),
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": []},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Options": options or {},
        "Labels": labels or {},
    }


def _default_bridge() -> str:
    """`wherry0`, and another name for each WHERRY_ROOT."""
    if not os.environ.get("WHERRY_ROOT"):
        return "wherry0"
    return f"wherry-{sha256(paths.data().encode()).hexdigest()[:8]}"


def bridge_name(record: Record) -> str:
    """The bridge of a network."""
    return str(record["Options"].get(NAME_OPTION) or f"wherry-{record['Id'][:8]}")


def is_true(record: Record, option: str, default: bool = True) -> bool:
    text = record["Options"].get(option)
    return default if text is None else text.lower() in ("1", "t", "true")


def subnets(record: Record) -> list[Subnet]:
    """The subnets of a network."""
    return [read_subnet(config["Subnet"]) for config in record["IPAM"].get("Config") or ()]


def _check_options(options: dict[str, str]) -> None:
    name = options.get(NAME_OPTION)
    if name is not None and not (
        0 < len(name) < 16 and _ALLOWED.issuperset(name) and name not in (".", "..")
    ):
        raise UsageError(f"invalid bridge name {name!r}: it is one of up to 15 letters and digits")
    mtu = options.get(MTU_OPTION)
    if mtu is not None and not (mtu.isascii() and mtu.isdigit() and 68 <= int(mtu) <= 65535):
        raise UsageError(f"invalid MTU: {mtu}: it is a number from 68 to 65535")
    for key in (ICC_OPTION, MASQUERADE_OPTION):
        if options.get(key, "true").lower() not in ("1", "t", "true", "0", "f", "false"):
            raise UsageError(f"invalid value for {key}: {options[key]!r} is neither true nor false")


def _checked(config: Record, used: Sequence[tuple[str, Subnet]], host: Sequence[Subnet]) -> Record:
    """A config that was asked for, completed. Raises where it cannot be."""
    subnet = read_subnet(config["Subnet"])
    for name, other in used:
        if subnet.overlaps(other):
            raise Conflict(
                "invalid pool request: Pool overlaps with other one on this address space",
                hint=f"network {name} has {other.text}",
            )
    for other in host:
        # A wider route, as a VPN has it, gives way to the bridge's.
        if subnet.holds(other):
            raise Conflict(
                "invalid pool request: Pool overlaps with other one on this address space",
                hint=f"this host has a route to {other.text}; `ip route` shows it",
            )
    return _with_gateway(config)


def _with_gateway(config: Record) -> Record:
    subnet = read_subnet(config["Subnet"])
    config = {**config, "Subnet": subnet.text}
    if not config.get("Gateway"):
        first = next(iter(subnet.hosts()), None)
        if first is None:
            raise UsageError(f"invalid subnet {subnet.text}: it has no room for a gateway")
        config["Gateway"] = show_address(subnet.version, first)
    return config


def _free_pool(taken: Sequence[Subnet]) -> str:
    for text in _POOLS:
        pool = read_subnet(text)
        if not any(pool.overlaps(other) for other in taken):
            return text
    raise Conflict(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to"
        " assign to the network",
        hint="`wherry network prune` removes unused networks; --subnet names a subnet",
    )


def _local_subnet(network_id: str) -> str:
    """A subnet of addresses that are nobody's beyond this site (RFC 4193)."""
    return f"fd{network_id[:2]}:{network_id[2:6]}:{network_id[6:10]}::/64"
