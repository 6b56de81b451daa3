"""The /etc/hosts and /etc/resolv.conf that a container gets."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.network.files import Attachment, hosts, resolv_conf

LOCALHOST = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def test_hosts_names_localhost_in_both_protocols() -> None:
    assert hosts("box", "", Attachment(), (), None) == LOCALHOST


def test_hosts_names_the_container_by_its_addresses() -> None:
    attachment = Attachment(addresses=("172.17.0.2", "fd00::2"))

    text = hosts("box", "example.org", attachment, (), None)

    assert text == LOCALHOST + ("172.17.0.2\tbox.example.org box\nfd00::2\tbox.example.org box\n")


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        ("db:10.0.0.1", "10.0.0.1\tdb"),
        ("db=10.0.0.1", "10.0.0.1\tdb"),
        ("db:2001:db8::1", "2001:db8::1\tdb"),
        ("db:[2001:db8::1]", "2001:db8::1\tdb"),
        ("up:host-gateway", "172.17.0.1\tup"),
    ],
)
def test_hosts_has_what_add_host_says(extra: str, line: str) -> None:
    attachment = Attachment(gateways=("172.17.0.1",))

    assert line in hosts("box", "", attachment, (extra,), None).splitlines()


def test_hosts_names_the_host_unless_the_user_does() -> None:
    attachment = Attachment(gateways=("172.17.0.1",))

    text = hosts("box", "", attachment, ("host.docker.internal:10.9.9.9",), None)

    assert "10.9.9.9\thost.docker.internal\n" in text
    assert "172.17.0.1\thost.docker.internal" not in text
    assert "172.17.0.1\thost.containers.internal\n" in text


def test_a_given_hosts_file_takes_the_place_of_localhost() -> None:
    text = hosts("box", "", Attachment(), ("db:10.0.0.1",), "127.0.0.1 here\n")

    assert text == "127.0.0.1 here\n10.0.0.1\tdb\n"


REST = "search example.org\noptions ndots:2 edns0\n"
HOST = "# written by hand\nnameserver 192.0.2.1\nsearch example.org\noptions ndots:2 edns0\n"


@pytest.mark.parametrize(
    ("text", "host", "result"),
    [
        (HOST, {}, "nameserver 192.0.2.1\nsearch example.org\noptions ndots:2 edns0\n"),
        (HOST, {"Dns": ["9.9.9.9"]}, "nameserver 9.9.9.9\n" + REST),
        (HOST, {"DnsSearch": ["."]}, "nameserver 192.0.2.1\noptions ndots:2 edns0\n"),
        (HOST, {"DnsSearch": ["a.b", "c"]}, "nameserver 192.0.2.1\n"
         + REST.replace("example.org", "a.b c")),
        (HOST, {"DnsOptions": ["ndots:0"]}, "nameserver 192.0.2.1\n"
         + REST.replace("2 edns0", "0")),
        ("search .\nnameserver 192.0.2.1\n", {}, "nameserver 192.0.2.1\n"),
        ("domain old\nsearch new\nnameserver 192.0.2.1\n", {},
         "nameserver 192.0.2.1\nsearch new\n"),
        ("nameserver 127.0.0.1\nnameserver 192.0.2.1\n", {}, "nameserver 192.0.2.1\n"),
        ("nameserver ::1\n", {}, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
        ("nameserver fe80::1%eth0\nnameserver 2001:db8::1\n", {}, "nameserver 2001:db8::1\n"),
        ("", {}, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
    ],
)  # fmt: skip
def test_resolv_conf_is_the_hosts_with_what_the_user_says(
    text: str, host: dict[str, Any], result: str
) -> None:
    assert resolv_conf(text, host, Attachment(), is_host=False) == result


def test_a_container_on_the_hosts_network_reaches_the_hosts_loopback() -> None:
    assert resolv_conf("nameserver 127.0.0.53\n", {}, Attachment(), is_host=True) == (
        "nameserver 127.0.0.53\n"
    )


def test_without_ipv6_a_container_gets_no_ipv6_resolver() -> None:
    text = "nameserver 2001:db8::1\nnameserver 192.0.2.1\n"

    assert resolv_conf(text, {}, Attachment(has_ipv6=False), is_host=False) == (
        "nameserver 192.0.2.1\n"
    )
