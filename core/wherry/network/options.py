"""`--subnet`, `--gateway`, `--ip-range`, `--aux-address`: docker's IPAM configs out of them."""

from __future__ import annotations

from wherry.errors import UsageError
from wherry.network.ip import Subnet, read_subnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    Config = dict[str, Any]


def read_subnets(
    subnets: Sequence[str],
    gateways: Sequence[str],
    ranges: Sequence[str],
    auxiliary: Mapping[str, str],
) -> list[Config]:
    """A config for each subnet, with what was said about it. Raises UsageError."""
    if max(len(gateways), len(ranges)) > len(subnets):
        raise UsageError("every ip-range or gateway must have a corresponding subnet")
    configs: list[Config] = []
    for text in subnets:
        subnet = _read(text, "subnet")
        if any(subnet.overlaps(read_subnet(other["Subnet"])) for other in configs):
            raise UsageError("multiple overlapping subnet configuration is not supported")
        configs.append({"Subnet": subnet.text})
    for text in ranges:
        part = _read(text, "ip-range")
        _put(configs, part, "IPRange", part.text, f"range {text}")
    for text in gateways:
        _put(configs, _read_address(text, "gateway"), "Gateway", text, f"gateway {text}")
    for name, text in auxiliary.items():
        address = _read_address(text, "aux-address")
        config = _holder(configs, address, f"aux-address {text}")
        config.setdefault("AuxiliaryAddresses", {})[name] = text
    return configs


def _put(configs: Sequence[Config], part: Subnet, key: str, text: str, what: str) -> None:
    config = _holder(configs, part, what)
    if key in config:
        kind = "ranges" if key == "IPRange" else "gateways"
        raise UsageError(
            f"cannot configure multiple {kind} ({text}, {config[key]}) on the same subnet"
            f" ({config['Subnet']})"
        )
    config[key] = text


def _holder(configs: Sequence[Config], part: Subnet, what: str) -> Config:
    """The config of the subnet that has all of `part`."""
    for config in configs:
        if read_subnet(config["Subnet"]).holds(part):
            return config
    raise UsageError(f"no matching subnet for {what}")


def _read(text: str, what: str) -> Subnet:
    try:
        return read_subnet(text)
    except ValueError:
        raise UsageError(f"invalid {what} {text}: invalid CIDR block notation") from None


def _read_address(text: str, what: str) -> Subnet:
    """An address, as the subnet that has no other."""
    try:
        return read_subnet(f"{text}/{128 if ':' in text else 32}")
    except ValueError:
        raise UsageError(f"invalid {what} {text}: it is no IP address") from None
