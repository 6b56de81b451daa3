"""Addresses and subnets as numbers: `ipaddress` costs more than a container's network."""

from __future__ import annotations

from wherry.lean import sockets
from wherry.values import value

_BITS = {4: 32, 6: 128}


def read_address(text: str) -> tuple[int, int]:
    """The version and the number of an address. Raises ValueError."""
    version = 6 if ":" in text else 4
    family = sockets.AF_INET6 if version == 6 else sockets.AF_INET
    try:
        return version, int.from_bytes(sockets.inet_pton(family, text), "big")
    except OSError:
        raise ValueError(f"{text!r} is not an IP address") from None


def show_address(version: int, number: int) -> str:
    """The address that `read_address` reads."""
    family = sockets.AF_INET6 if version == 6 else sockets.AF_INET
    return str(sockets.inet_ntop(family, number.to_bytes(_BITS[version] // 8, "big")))


def packed(text: str) -> bytes:
    """An address as it is in a packet."""
    version, number = read_address(text)
    return number.to_bytes(_BITS[version] // 8, "big")


@value
class Subnet:
    """The addresses that begin with the same `length` bits."""

    version: int
    base: int
    length: int

    @property
    def last(self) -> int:
        """The highest address of it."""
        return self.base + (1 << (_BITS[self.version] - self.length)) - 1

    @property
    def text(self) -> str:
        return f"{show_address(self.version, self.base)}/{self.length}"

    def has(self, address: str) -> bool:
        """Whether `address` is one of it."""
        version, number = read_address(address)
        return version == self.version and self.base <= number <= self.last

    def holds(self, other: Subnet) -> bool:
        """Whether all of `other` is in it."""
        return self.version == other.version and self.base <= other.base and other.last <= self.last

    def overlaps(self, other: Subnet) -> bool:
        """Whether they have an address in common."""
        return self.version == other.version and self.base <= other.last and other.base <= self.last

    def hosts(self) -> range:
        """What an interface may have: all but the first and IPv4's broadcast."""
        if self.length >= _BITS[self.version] - 1:
            return range(self.base, self.last + 1)
        return range(self.base + 1, self.last + (1 if self.version == 6 else 0))


def read_subnet(text: str) -> Subnet:
    """`10.0.0.0/24`; bits after the prefix are taken for 0. Raises ValueError."""
    address, slash, length = text.partition("/")
    version, number = read_address(address)
    bits = _BITS[version]
    if not slash or not length.isdigit() or not length.isascii() or int(length) > bits:
        raise ValueError(f"{text!r} is not a subnet")
    rest = bits - int(length)
    return Subnet(version=version, base=number >> rest << rest, length=int(length))
