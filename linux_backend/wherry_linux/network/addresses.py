"""The addresses of a network namespace, as the kernel lists them (proc(5))."""

from __future__ import annotations

_GLOBAL = "00"


def addresses(pid: int) -> list[str]:
    """The IPv4 addresses of the network namespace of process `pid`, without loopback's."""
    found: list[str] = []
    address = ""
    with open(f"/proc/{pid}/net/fib_trie") as lines:
        for line in lines:
            words = line.split()
            if words[0] == "|--":
                address = words[1]
            elif words[:3] == ["/32", "host", "LOCAL"] and not address.startswith("127."):
                found.append(address)
    # Each is in the table of local routes and in that of all.
    return list(dict.fromkeys(found))


def ipv6_addresses(pid: int) -> list[str]:
    """Its IPv6 addresses that others know."""
    found: list[str] = []
    try:
        with open(f"/proc/{pid}/net/if_inet6") as lines:
            for digits, _index, _prefix, scope, *_ in map(str.split, lines):
                if scope == _GLOBAL:
                    found.append(":".join(digits[at : at + 4] for at in range(0, 32, 4)))
    except FileNotFoundError:
        pass  # a kernel without IPv6
    return found
