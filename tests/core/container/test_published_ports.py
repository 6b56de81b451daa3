"""`-p` and `--expose` in docker's grammar."""

from __future__ import annotations

import pytest

from wherry.container.ports import parse_expose, parse_publish
from wherry.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", {"80/tcp": [("", "")]}),
        ("8080:80", {"80/tcp": [("", "8080")]}),
        (":80", {"80/tcp": [("", "")]}),
        ("127.0.0.1:8080:80", {"80/tcp": [("127.0.0.1", "8080")]}),
        ("127.0.0.1::80", {"80/tcp": [("127.0.0.1", "")]}),
        ("[::1]:8080:80/udp", {"80/udp": [("::1", "8080")]}),
        ("[::1]::80", {"80/tcp": [("::1", "")]}),
        ("53:53/UDP", {"53/udp": [("", "53")]}),
        ("7000-7001:80-81", {"80/tcp": [("", "7000")], "81/tcp": [("", "7001")]}),
        ("7000-7005:80", {"80/tcp": [("", "7000-7005")]}),
        ("80-81/sctp", {"80/sctp": [("", "")], "81/sctp": [("", "")]}),
        ("published=8080,target=80,protocol=udp,mode=host", {"80/udp": [("", "8080")]}),
        ("target=80", {"80/tcp": [("", "")]}),
    ],
)
def test_a_port_is_published(text: str, expected: dict[str, list[tuple[str, str]]]) -> None:
    bindings = parse_publish([text])

    assert {
        port: [(each["HostIp"], each["HostPort"]) for each in bound]
        for port, bound in bindings.items()
    } == expected


def test_the_same_port_can_be_published_as_tcp_and_udp() -> None:
    assert list(parse_publish(["53:53", "53:53/udp", "53:53"])) == ["53/tcp", "53/udp"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "invalid containerPort: x"),
        ("80:x", "invalid containerPort: x"),
        ("x:80", "invalid hostPort: x"),
        ("99999", "invalid containerPort: 99999"),
        ("5-3", "invalid containerPort: 5-3"),
        ("1.2.3:80:80", "invalid IP address: 1.2.3"),
        ("80/foo", "invalid proto: foo"),
        ("1-3:1-2", "invalid ranges specified for container and host Ports: 1-2 and 1-3"),
        ("80:", "no port specified: 80:<empty>"),
        ("1:2:3:4", "invalid IP address: 1:2"),
        ("mode=host", "no port specified: :/tcp<empty>"),
        ("publish=1", "invalid field key: publish"),
    ],
)
def test_a_wrong_port_is_told_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_publish([text])

    assert caught.value.message == message


def test_a_range_of_ports_is_exposed() -> None:
    assert parse_expose("80-82/udp") == ["80/udp", "81/udp", "82/udp"]
    with pytest.raises(UsageError, match="invalid range format for --expose: x"):
        parse_expose("x")
    with pytest.raises(UsageError, match="invalid port format for --expose: 1:2"):
        parse_expose("1:2")
