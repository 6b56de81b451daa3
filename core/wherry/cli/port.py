"""`wherry port`: what a container publishes; `port add` and `port rm` while it runs."""

from __future__ import annotations

import sys

from wherry.backend import Command, execute
from wherry.cli.each import complain
from wherry.cli.grammar import argument, command
from wherry.container.ports import parse_publish, port_key
from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from wherry.container.spec import PortBinding
    from wherry.engine import Engine

_EVERYWHERE = ("", "0.0.0.0", "::")


@command(
    argument("container"),
    argument("private_port", required=False, metavar="PRIVATE_PORT[/PROTO]"),
    examples="""\
  $ wherry port web                                    every published port
  $ wherry port web 80                                 where port 80 can be reached
  $ wherry port add web 8080:80                        publish it while the container runs
""",
)
def port(container: str, private_port: str) -> int:
    """List port mappings or a specific mapping for the container"""
    wanted = ""
    if private_port:
        number, protocol = port_key(private_port)
        wanted = f"{number}/{protocol}"

    def action(engine: Engine) -> int:
        settings = engine.containers.inspect(container)["NetworkSettings"]
        ports: dict[str, Any] = settings.get("Ports") or {}
        if wanted:
            if not ports.get(wanted):
                raise UsageError(f"No public port '{private_port}' published for {container}")
            print("\n".join(_addresses(ports[wanted])))
            _explain(ports[wanted])
            return 0
        for key in sorted(ports, key=port_key):
            for address in _addresses(ports[key] or ()):
                print(f"{key} -> {address}")
        _explain(each for bindings in ports.values() for each in bindings or ())
        return 0

    argv = port.argv(container=container, private_port=wanted)
    return execute(Command(argv=argv, action=action, brief=True))


@command(argument("container"), argument("publish", metavar="PORT"), name="port add")
def add(container: str, publish: str) -> int:
    """Publish a port of a container, also while it runs; PORT is what run -p takes"""
    bindings = parse_publish([publish])

    def action(engine: Engine) -> int:
        engine.networks.publish(container, bindings)
        return 0

    return execute(Command(argv=add.argv(container=container, publish=publish), action=action))


@command(argument("container"), argument("publish", metavar="PORT"), name="port rm")
def rm(container: str, publish: str) -> int:
    """Publish a port of a container no longer; PORT is what run -p takes"""
    bindings = parse_publish([publish])

    def action(engine: Engine) -> int:
        engine.networks.unpublish(container, bindings)
        return 0

    return execute(Command(argv=rm.argv(container=container, publish=publish), action=action))


def _explain(bindings: Iterable[PortBinding]) -> None:
    """Tell a person, and no program, who reaches what is published everywhere."""
    if sys.stdout.isatty() and any(each["HostIp"] in _EVERYWHERE for each in bindings):
        complain(
            "0.0.0.0 and [::] are every address of this host: others in its networks reach "
            "these ports",
            "`-p 127.0.0.1:…` publishes for this host alone",
        )


def _addresses(bindings: Any) -> list[str]:
    return [
        f"[{each['HostIp']}]:{each['HostPort']}"
        if ":" in each["HostIp"]
        else f"{each['HostIp'] or '0.0.0.0'}:{each['HostPort']}"
        for each in bindings
    ]
