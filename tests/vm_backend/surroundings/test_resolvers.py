"""Whom each kind of host asks for names, read from what it says of that."""

from __future__ import annotations

from wherry_vm.surroundings.resolvers import (
    Resolvers,
    from_registry,
    from_resolv_conf,
    from_scutil,
)
from wherry_vm.surroundings.telling import resolv_conf

SCUTIL = """\
DNS configuration

resolver #1
  search domain[0] : home.example
  nameserver[0] : 192.168.1.1
  nameserver[1] : fe80::1%en0
  if_index : 14 (en0)
  flags    : Request A records
  reach    : 0x00020002 (Reachable,Directly Reachable Address)

resolver #2
  domain   : local
  options  : mdns
  nameserver[0] : 224.0.0.251
  timeout  : 5

resolver #3
  domain   : corp.example
  nameserver[0] : 10.8.0.1
  flags    : Supplemental, Request A records
  order    : 101000

resolver #4
  domain   : test
  nameserver[0] : 127.0.0.1
  port     : 5354

DNS configuration (for scoped queries)

resolver #1
  search domain[0] : elsewhere.example
  nameserver[0] : 172.20.10.1
  if_index : 14 (en0)
  flags    : Scoped, Request A records
"""


def test_resolv_conf_has_servers_on_loopback_too() -> None:
    found = from_resolv_conf(
        "# made by a program\nnameserver 127.0.0.53 ; a stub\nnameserver 192.0.2.1\n"
        "domain old.example\nsearch one.example two.example\noptions edns0 ndots:2\nnameserver\n"
    )

    assert found.servers("example.org") == (("127.0.0.53", 53), ("192.0.2.1", 53))
    assert found.search == ("one.example", "two.example")
    assert found.options == ("edns0", "ndots:2")


def test_macos_asks_a_vpn_for_its_domain_and_a_port_of_its_own() -> None:
    found = from_scutil(SCUTIL)

    assert found.servers("example.org") == (("192.168.1.1", 53), ("fe80::1%en0", 53))
    assert found.servers("wiki.Corp.example.") == (("10.8.0.1", 53),)
    assert found.servers("site.test") == (("127.0.0.1", 5354),)
    assert found.search == ("home.example",)


def test_what_answers_by_multicast_is_asked_like_everybody() -> None:
    assert from_scutil(SCUTIL).servers("printer.local") == from_scutil(SCUTIL).servers("org")


def test_windows_leaves_out_networks_that_it_has_left() -> None:
    found = from_registry(
        {"SearchList": "one.example,two.example"},
        [
            {"EnableDHCP": 1, "DhcpIPAddress": "0.0.0.0", "DhcpNameServer": "192.0.2.9"},
            {
                "EnableDHCP": 1, "DhcpIPAddress": "192.0.2.7",
                "DhcpNameServer": "192.0.2.1 192.0.2.2",
            },
            {"EnableDHCP": 0, "NameServer": "10.8.0.1", "Domain": "corp.example"},
        ],
        [{"Name": [".secret.corp.example"], "GenericDNSServers": "10.8.0.9;10.8.0.10"}],
    )  # fmt: skip

    assert found.servers("org") == (("192.0.2.1", 53), ("192.0.2.2", 53), ("10.8.0.1", 53))
    assert found.servers("wiki.corp.example") == (("10.8.0.1", 53),)
    assert found.servers("x.secret.corp.example") == (("10.8.0.9", 53), ("10.8.0.10", 53))
    assert found.search == ("one.example", "two.example")


def test_windows_without_a_list_searches_its_domain() -> None:
    found = from_registry({"Domain": "", "DhcpDomain": "home.example"}, [], [])

    assert found.search == ("home.example",)


def test_a_host_without_resolvers_is_one_without_names() -> None:
    assert from_resolv_conf("").servers("example.org") == ()
    assert from_scutil("No DNS configuration available\n").servers("example.org") == ()


def test_the_guest_searches_what_its_host_does_and_asks_its_host() -> None:
    said = resolv_conf(Resolvers(routes={}, search=("a.example", "b"), options=("ndots:2",)))

    assert said == "nameserver 10.0.2.3\nsearch a.example b\noptions ndots:2\n"
