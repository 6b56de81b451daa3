"""`wherry network`: networks of their own for containers."""

from __future__ import annotations

from wherry.backend import Command, execute
from wherry.cli import common
from wherry.cli.grammar import argument, command, option
from wherry.cli.options import read_label, read_pair
from wherry.container import endpoint
from wherry.errors import UsageError
from wherry.filters import parse_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from wherry.engine import Engine

_FILTERS = ("dangling", "driver", "id", "label", "label!", "name", "scope", "type")
_PRUNE_FILTERS = ("label", "label!", "until")
_LIST: Any = {"multiple": True, "metavar": "list"}


def _pairs(texts: Iterable[str]) -> dict[str, str]:
    return {name: rest for name, _, rest in (text.partition("=") for text in texts)}


@command(
    option("--attachable", type=bool, help="Enable manual container attachment"),
    option("--aux-address", multiple=True, metavar="map", convert=read_pair,
           help="Auxiliary IPv4 or IPv6 addresses that containers do not get"),
    option("-d", "--driver", default="bridge", help="Driver to manage the Network"),
    option("--gateway", **_LIST, help="IPv4 or IPv6 Gateway for the master subnet"),
    option("--internal", type=bool, help="Restrict external access to the network"),
    option("--ip-range", **_LIST, help="Allocate container ip from a sub-range"),
    option("--ipam-driver", default="default", help="IP Address Management Driver"),
    option("--ipv4", type=bool, default=True, help="Enable IPv4 address assignment"),
    option("--ipv6", type=bool, help="Enable IPv6 address assignment"),
    option("--label", **_LIST, convert=read_label, help="Set metadata on a network"),
    option("-o", "--opt", multiple=True, metavar="map", convert=read_pair,
           help="Set driver specific options"),
    option("--scope", hidden=True),
    option("--subnet", **_LIST, help="Subnet in CIDR format that represents a network segment"),
    argument("network"),
    name="network create",
)  # fmt: skip
def create(network: str, **values: Any) -> int:
    """Create a network"""
    if values["ipam_driver"] not in ("", "default"):
        raise UsageError(f"invalid IPAM driver {values['ipam_driver']}: there is only default")
    if not values["ipv4"]:
        raise UsageError("a network without IPv4 is not supported")
    if values["scope"] not in ("", "local"):
        raise UsageError(f"invalid scope {values['scope']}: there are only local networks")

    def action(engine: Engine) -> int:
        from wherry.network.options import read_subnets

        aux = _pairs(values["aux_address"])
        print(
            engine.networks.create(
                network,
                driver=values["driver"],
                subnets=read_subnets(values["subnet"], values["gateway"], values["ip_range"], aux),
                ipv6=values["ipv6"],
                internal=values["internal"],
                attachable=values["attachable"],
                options=_pairs(values["opt"]),
                labels=_pairs(values["label"]),
            )
        )
        return 0

    return execute(Command(argv=create.argv(network=network, **values), action=action))


@command(
    common.DOCUMENT_FORMAT,
    option("-v", "--verbose", type=bool, help="Verbose output for diagnostics"),
    argument("network", nargs=-1),
    name="network inspect",
)
def inspect(network: tuple[str, ...], format: str, verbose: bool) -> int:  # noqa: A002
    """Display detailed information on one or more networks"""

    def action(engine: Engine) -> int:
        from wherry.cli.inspect import print_found

        return print_found(network, engine.networks.inspect, format)

    argv = inspect.argv(network=network, format=format, verbose=verbose)
    return execute(Command(argv=argv, action=action, brief=True))


@command(
    common.FILTER,
    common.FORMAT,
    common.NO_TRUNC,
    option("-q", "--quiet", type=bool, help="Only display network IDs"),
    name="network ls",
)
def ls(filter: tuple[str, ...], format: str, no_trunc: bool, quiet: bool) -> int:  # noqa: A002
    """List networks"""
    filters = parse_filters(filter, _FILTERS)

    def action(engine: Engine) -> int:
        from wherry.cli.tables import Table, label_fields, print_rows, short_id
        from wherry.times import format_go_time
        from wherry.words import natural_order

        table = Table(
            columns=("ID", "Name", "Driver", "Scope"), titles={"ID": "NETWORK ID"},
            raw="network_id: {{.ID}}\\nname: {{.Name}}\\ndriver: {{.Driver}}\\n"
                "scope: {{.Scope}}\\n",
        )  # fmt: skip
        rows = [
            {
                "ID": short_id(each["Id"], full=no_trunc),
                "Name": each["Name"],
                "Driver": each["Driver"],
                "Scope": each["Scope"],
                "IPv4": str(each["EnableIPv4"]).lower(),
                "IPv6": str(each["EnableIPv6"]).lower(),
                "Internal": str(each["Internal"]).lower(),
                "CreatedAt": format_go_time(each["Created"]),
                **label_fields(each["Labels"]),
            }
            for each in sorted(
                engine.networks.list(filters), key=lambda each: natural_order(each["Name"])
            )
        ]
        print_rows(rows, table, template=format, quiet=quiet)
        return 0

    argv = ls.argv(filter=filter, format=format, no_trunc=no_trunc, quiet=quiet)
    return execute(Command(argv=argv, action=action, brief=True))


@command(
    option("-f", "--force", type=bool, help="Do not error if the network does not exist"),
    argument("network", nargs=-1),
    name="network rm",
)
def rm(network: tuple[str, ...], force: bool) -> int:
    """Remove one or more networks"""

    def action(engine: Engine) -> int:
        from wherry.cli.each import for_each

        networks = engine.networks
        names = [name for name in network if not force or networks.is_there(name)]
        return for_each(names, lambda name: networks.remove(name, force=force))

    return execute(Command(argv=rm.argv(network=network, force=force), action=action))


@command(common.PRUNE_FILTER, common.FORCE_PRUNE, name="network prune")
def prune(filter: tuple[str, ...], force: bool) -> int:  # noqa: A002
    """Remove all unused networks"""
    from wherry.cli.prune import confirm

    filters = parse_filters(filter, _PRUNE_FILTERS)
    confirm(
        "WARNING! This will remove all custom networks not used by at least one container.",
        "network prune",
        force,
    )

    def action(engine: Engine) -> int:
        if removed := engine.networks.prune(filters):
            print("Deleted Networks:", *removed, sep="\n", end="\n\n")
        return 0

    return execute(Command(argv=prune.argv(filter=filter, force=True), action=action))


@command(
    option("--alias", **_LIST, help="Add network-scoped alias for the container"),
    option("--driver-opt", **_LIST, convert=read_pair, help="driver options for the network"),
    option("--gw-priority", type=int,
           help="Highest gw-priority provides the default gateway. Accepts positive and negative "
                "values"),
    option("--ip", convert=endpoint.read_ip, help="IPv4 address (e.g., \"172.30.100.104\")"),
    option("--ip6", convert=endpoint.read_ip, help="IPv6 address (e.g., \"2001:db8::33\")"),
    argument("network"),
    argument("container"),
    name="network connect",
)  # fmt: skip
def connect(network: str, container: str, **values: Any) -> int:
    """Connect a container to a network"""
    addresses = {"IPv4Address": values["ip"], "IPv6Address": values["ip6"]}
    given = {key: text for key, text in addresses.items() if text}
    settings = {
        "IPAMConfig": given or None,
        "Aliases": list(values["alias"]) or None,
        "DriverOpts": _pairs(values["driver_opt"]) or None,
        "GwPriority": values["gw_priority"],
    }

    def action(engine: Engine) -> int:
        engine.networks.connect(network, container, settings)
        return 0

    argv = connect.argv(network=network, container=container, **values)
    return execute(Command(argv=argv, action=action))


@command(
    option("-f", "--force", type=bool,
           help="Force the container to disconnect from a network"),
    argument("network"),
    argument("container"),
    name="network disconnect",
)  # fmt: skip
def disconnect(network: str, container: str, force: bool) -> int:
    """Disconnect a container from a network"""

    def action(engine: Engine) -> int:
        engine.networks.disconnect(network, container, force=force)
        return 0

    argv = disconnect.argv(network=network, container=container, force=force)
    return execute(Command(argv=argv, action=action))
