"""Firewalls of others that drop what is forwarded, and so all that leaves a bridge.

In nf_tables a packet has to please every chain: what another one drops, ours cannot save.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from wherry_linux import idmap
from wherry_linux.doctor.finding import Finding, read
from wherry_linux.network import nftables as nft
from wherry_linux.network.firewall import TABLE
from wherry_linux.network.rulesets import chains_at, tables_naming

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry_linux.network.rulesets import Chain

# Every bridge of ours, in the words of iptables, ufw and firewalld; nft says wherry*.
_BRIDGES = "wherry+"
_FAMILIES = {nft.INET: "inet", nft.IPV4: "ip", nft.IPV6: "ip6"}
_IPTABLES = {nft.IPV4: "iptables", nft.IPV6: "ip6tables"}
_FIREWALLD = f"firewall-cmd --permanent --zone=trusted --add-interface={_BRIDGES}"


def forwarding() -> Iterator[Finding]:
    who, lines = _in_the_way()
    if not lines:
        yield Finding(subject="forwarding", verdict="ok", text="no other firewall is in its way")
        return
    yield Finding(
        subject="forwarding",
        verdict="limited",
        text=f"{who} drops what is forwarded: from a bridge nobody reaches the world, nor the"
        " world a published port",
        mend=" && ".join(f"sudo {line}" for line in lines),
        who="administrator",
        meanwhile="containers on one network reach each other; --network host has all",
    )


def _in_the_way() -> tuple[str, list[str]]:
    """Who drops packets of ours, and the lines that make an exception for them."""
    try:
        with nft.open_firewall() as connection:
            chains = chains_at(connection, nft.FORWARD)
            named = tables_naming(connection, b"wherry")
    except OSError:
        chains, named = [], set()
    if any(chain.table == "firewalld" for chain in chains):
        is_known = (nft.INET, "firewalld") in named
        return "firewalld", [] if is_known else [_FIREWALLD, "firewall-cmd --reload"]
    dropping = [
        chain
        for chain in chains
        if chain.policy == nft.DROP
        and chain.table != TABLE
        and chain.family in _FAMILIES
        and (chain.family, chain.table) not in named
    ]
    who, lines = "the firewall", []
    for chain in dropping:
        who, exceptions = _exceptions(chain)
        lines += [line for line in exceptions if line not in lines]
    return (who, lines) if lines else _legacy()


def _exceptions(chain: Chain) -> tuple[str, list[str]]:
    """Whose chain it is, and how it lets our bridges through."""
    program = _IPTABLES.get(chain.family)
    if program is None or (chain.table, chain.name) != ("filter", "FORWARD"):
        place = f"{_FAMILIES[chain.family]} {chain.table} {chain.name}"
        line = f"nft insert rule {place}"
        return f"the chain {place}", [
            f"{line} iifname '{_BRIDGES[:-1]}*' accept",
            f"{line} oifname '{_BRIDGES[:-1]}*' accept",
        ]
    if {"ufw-user-forward", "ufw6-user-forward"} & chain.beside:
        return "ufw", [f"ufw route allow in on {_BRIDGES}", f"ufw route allow out on {_BRIDGES}"]
    is_dockers = "DOCKER-USER" in chain.beside
    name = "DOCKER-USER" if is_dockers else "FORWARD"
    return "docker" if is_dockers else f"{program}'s chain FORWARD", _with_iptables(program, name)


def _with_iptables(program: str, chain: str) -> list[str]:
    return [f"{program} -I {chain} {way} '{_BRIDGES}' -j ACCEPT" for way in ("-i", "-o")]


def _legacy() -> tuple[str, list[str]]:
    """The same of the tables of before nf_tables."""
    program = "iptables-legacy"
    if "filter" not in read("/proc/net/ip_tables_names").split() or not idmap.find_program(program):
        return "", []
    listed = subprocess.run([program, "-S"], capture_output=True, text=True, check=False).stdout
    if "-P FORWARD DROP" not in listed or "wherry" in listed:
        return "", []
    is_dockers = "-N DOCKER-USER" in listed
    name = "DOCKER-USER" if is_dockers else "FORWARD"
    who = "docker" if is_dockers else f"{program}'s chain FORWARD"
    return who, _with_iptables(program, name)
