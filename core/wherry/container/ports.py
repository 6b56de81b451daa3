"""What `-p` and `--expose` say: nat's grammar, and docker's long form.

80   8080:80   :80   127.0.0.1:8080:80   127.0.0.1::80   [::1]:8080:80
7000-7005:7000-7005   7000-7005:80   …/udp, …/sctp
published=8080,target=80,protocol=udp
"""

from __future__ import annotations

from wherry.errors import UsageError
from wherry.words import is_ip, read_natural, split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from wherry.container.spec import PortBinding

PROTOCOLS = ("tcp", "udp", "sctp")


def parse_publish(texts: Iterable[str]) -> dict[str, list[PortBinding]]:
    """HostConfig.PortBindings for all `-p` of a command line."""
    bindings: dict[str, list[PortBinding]] = {}
    for text in texts:
        short = _from_long_form(text) if "=" in text else text
        for port, binding in _bindings(short):
            known = bindings.setdefault(port, [])
            if binding not in known:
                known.append(binding)
    return bindings


def parse_expose(text: str) -> list[str]:
    """`--expose 80-82/udp` as ports: "80/udp", "81/udp", "82/udp"."""
    if ":" in text:
        raise UsageError(f"invalid port format for --expose: {text}")
    numbers, _, protocol = text.partition("/")
    wrong = f"invalid range format for --expose: {text}"
    try:
        first, last = _range(numbers)
    except ValueError as error:
        raise UsageError(f"{wrong}, error: {error}") from None
    return [f"{number}/{_protocol(protocol)}" for number in range(first, last + 1)]


def port_key(text: str) -> tuple[int, str]:
    """The number and protocol of "80/tcp" (or "80")."""
    number, _, protocol = text.partition("/")
    try:
        first, last = _range(number)
    except ValueError:
        first, last = 0, -1
    if first != last:
        raise UsageError(f"invalid port '{text}'")
    return first, _protocol(protocol)


def wanted_ports(body: Mapping[str, Any]) -> dict[str, list[PortBinding]]:
    """What a create body wants to be published; "" and 0 stand for any address and port."""
    host = body["HostConfig"]
    bindings: dict[str, Any] = dict(host.get("PortBindings") or {})
    if host.get("PublishAllPorts"):
        for text in body.get("ExposedPorts") or {}:  # an image may have ranges
            for port in parse_expose(text):
                bindings.setdefault(port, None)
    return {port: given or [{"HostIp": "", "HostPort": ""}] for port, given in bindings.items()}


def shown_ports(published: Iterable[Mapping[str, str]]) -> dict[str, list[PortBinding]]:
    """NetworkSettings.Ports of docker's documents."""
    ports: dict[str, list[PortBinding]] = {}
    for each in published:
        binding: PortBinding = {"HostIp": each["HostIp"], "HostPort": each["HostPort"]}
        ports.setdefault(each["Port"], []).append(binding)
    return ports


def _bindings(text: str) -> list[tuple[str, PortBinding]]:
    """Each container port of one `-p`, with its place on the host."""
    rest, _, protocol = text.partition("/")
    address, host, container = _split(rest)
    if not container:
        raise UsageError(f"no port specified: {text}<empty>")
    first, last = _ports(container, "containerPort")
    protocol = _protocol(protocol)
    if address and not is_ip(address):
        raise UsageError(f"invalid IP address: {address}")
    if not host:
        ports = [""] * (last - first + 1)
    else:
        host_first, host_last = _ports(host, "hostPort")
        if host_last - host_first == last - first:
            ports = [str(port) for port in range(host_first, host_last + 1)]
        elif first == last:
            # One port of the container on any free one of a range.
            ports = [host]
        else:
            raise UsageError(
                f"invalid ranges specified for container and host Ports: {container} and {host}"
            )
    return [
        (f"{first + offset}/{protocol}", {"HostIp": address, "HostPort": port})
        for offset, port in enumerate(ports)
    ]


def _split(text: str) -> tuple[str, str, str]:
    """The address, host port and container port of `-p` without its protocol."""
    head, _, container = text.rpartition(":")
    address, _, host = head.rpartition(":")
    if address.startswith("[") and address.endswith("]"):
        return address[1:-1], host, container
    if head.startswith("["):
        raise UsageError(f"invalid IP address {text}: the form is [ADDRESS]:HOSTPORT:PORT")
    return address, host, container


def _from_long_form(text: str) -> str:
    """`published=8080,target=80,…` as the short form."""
    fields: dict[str, str] = {}
    for field in split_csv(text):
        key, equals, content = field.partition("=")
        key = key.lower()
        if not equals or not content:
            raise UsageError(f"invalid field: {field}")
        if key not in ("published", "target", "protocol", "mode"):
            raise UsageError(f"invalid field key: {key}")
        if key == "mode" and content not in ("host", "ingress"):
            raise UsageError(f"invalid publish mode value ({content}): must be host or ingress")
        fields[key] = content.lower()
    published = fields.get("published", "")
    protocol = fields.get("protocol", "tcp")
    return f"{published}:{fields.get('target', '')}/{protocol}"


def _ports(text: str, what: str) -> tuple[int, int]:
    try:
        return _range(text)
    except ValueError:
        raise UsageError(f"invalid {what}: {text}") from None


def _range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    numbers = (_number(first), _number(last) if dash else _number(first))
    if numbers[0] > numbers[1]:
        raise ValueError(f"invalid range specified for port: {text}")
    return numbers


def _number(text: str) -> int:
    number = read_natural(text)
    if not 0 <= number <= 65535:
        raise ValueError(f"{text!r} is not a port number")
    return number


def _protocol(text: str) -> str:
    protocol = text.lower() or "tcp"
    if protocol not in PROTOCOLS:
        raise UsageError(f"invalid proto: {text}")
    return protocol
