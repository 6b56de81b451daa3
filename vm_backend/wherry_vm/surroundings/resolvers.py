"""Whom this host asks for names: resolv.conf(5), macOS's `scutil --dns`, Windows' registry.

What is read becomes the same value on every system; the readers of text and of the
registry's values are pure, and tested everywhere.
"""

from __future__ import annotations

import sys

from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    Server = tuple[str, int]

_PORT = 53
_SCUTIL = ("/usr/sbin/scutil", "--dns")
_PATIENCE = 5


@value
class Resolvers:
    """The name servers for a domain and all below it, by domain; "" is every other name.

    `search` and `options` are those of resolv.conf(5).
    """

    routes: Mapping[str, tuple[Server, ...]]
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def servers(self, name: str) -> tuple[Server, ...]:
        """Whom to ask for `name`, in order: those of the closest domain that has any."""
        domain = name.rstrip(".").lower()
        while domain and domain not in self.routes:
            domain = domain.partition(".")[2]
        return self.routes.get(domain, ())


def read() -> Resolvers:
    """This host's, as they are now; none where they cannot be told."""
    try:
        if sys.platform == "win32":
            return from_registry(*_registry())
        if sys.platform == "darwin":
            return from_scutil(_scutil())
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            return from_resolv_conf(file.read())
    except OSError:
        return Resolvers(routes={})


def from_resolv_conf(text: str) -> Resolvers:
    """What resolv.conf(5) says; a resolver on loopback is as good as any."""
    servers: list[Server] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        keyword, *words = line.partition("#")[0].partition(";")[0].split() or [""]
        if keyword == "nameserver" and words:
            servers.append((words[0], _PORT))
        elif keyword in ("search", "domain") and words:
            search = tuple(words)
        elif keyword == "options":
            options += words
    return Resolvers(routes=_routes([("", servers)]), search=search, options=tuple(options))


def from_scutil(text: str) -> Resolvers:
    """What macOS asks: the first list of `scutil --dns`, where a VPN has its domains, too.

    The second list is for programs that have chosen an interface.
    """
    ordinary, _, _ = text.partition("DNS configuration (for scoped queries)")
    routes: list[tuple[str, list[Server]]] = []
    search: list[str] = []
    for block in ordinary.split("resolver #")[1:]:
        fields = [line.partition(" : ") for line in block.splitlines()[1:]]
        known = {key.strip(): text.strip() for key, _, text in fields}
        addresses = [text for key, text in known.items() if key.startswith("nameserver[")]
        search += [text for key, text in known.items() if key.startswith("search domain[")]
        if "mdns" not in known.get("options", ""):
            port = int(known["port"]) if known.get("port", "").isdigit() else _PORT
            routes.append((known.get("domain", ""), [(each, port) for each in addresses]))
    return Resolvers(routes=_routes(routes), search=tuple(dict.fromkeys(search)))


def from_registry(
    parameters: Mapping[str, Any],
    interfaces: Iterable[Mapping[str, Any]],
    policies: Iterable[Mapping[str, Any]],
) -> Resolvers:
    """What Windows asks: the values of Tcpip's parameters, of its interfaces, and of the
    rules of the name resolution policy table, which VPNs make for their domains."""
    routes: list[tuple[str, list[Server]]] = []
    search = _words(parameters.get("SearchList")) or _words(
        parameters.get("Domain") or parameters.get("DhcpDomain")
    )
    for each in interfaces:
        if each.get("EnableDHCP") and each.get("DhcpIPAddress") in (None, "", "0.0.0.0"):
            continue  # what is left of a network that it is no longer in
        addresses = _words(each.get("NameServer")) or _words(each.get("DhcpNameServer"))
        servers = [(address, _PORT) for address in addresses]
        domain = each.get("Domain") or each.get("DhcpDomain") or ""
        routes += [("", servers), (domain, servers)]
    # A rule is closer than what an interface says of its domain.
    for each in policies:
        servers = [(address, _PORT) for address in _words(each.get("GenericDNSServers"))]
        names = each.get("Name") or ()
        domains = [names] if isinstance(names, str) else names
        routes[:0] = [(domain.lstrip("."), servers) for domain in domains]
    return Resolvers(routes=_routes(routes), search=tuple(search))


def _routes(found: Iterable[tuple[str, list[Server]]]) -> dict[str, tuple[Server, ...]]:
    """Servers by domain, in the order in which they were found, each once."""
    routes: dict[str, dict[Server, None]] = {}
    for domain, servers in found:
        if servers:
            routes.setdefault(domain.strip(".").lower(), {}).update(dict.fromkeys(servers))
    return {domain: tuple(servers) for domain, servers in routes.items()}


def _words(text: Any) -> list[str]:
    return str(text or "").replace(",", " ").replace(";", " ").split()


def _scutil() -> str:
    import subprocess

    try:
        result = subprocess.run(
            _SCUTIL, capture_output=True, text=True, check=False, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        return ""
    return result.stdout


def _registry() -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """The three arguments of `from_registry`, on Windows."""
    if sys.platform != "win32":
        raise OSError("no registry")
    import winreg

    def values(path: str) -> dict[str, Any]:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
            count = winreg.QueryInfoKey(key)[1]
            return {
                name: text for name, text, _ in (winreg.EnumValue(key, i) for i in range(count))
            }

    def below(path: str) -> list[dict[str, Any]]:
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
                count = winreg.QueryInfoKey(key)[0]
                names = [winreg.EnumKey(key, i) for i in range(count)]
        except FileNotFoundError:
            return []
        return [values(f"{path}\\{name}") for name in names]

    services = r"SYSTEM\CurrentControlSet\Services"
    parameters = rf"{services}\Tcpip\Parameters"
    policies = below(r"SOFTWARE\Policies\Microsoft\Windows NT\DNSClient\DnsPolicyConfig")
    policies += below(rf"{services}\Dnscache\Parameters\DnsPolicyConfig")
    return values(parameters), below(rf"{parameters}\Interfaces"), policies
