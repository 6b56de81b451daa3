"""The addresses of a network namespace, from the kernel's routing table (proc(5))."""

from __future__ import annotations


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
