"""`wherry ps`: the containers there are, as docker's table shows them."""

from __future__ import annotations

from wherry.backend import Command, execute
from wherry.cli import common
from wherry.cli.each import complain
from wherry.cli.grammar import command, option
from wherry.cli.tables import Table, label_fields, print_rows, short_id
from wherry.config_file import ConfigFile
from wherry.filters import parse_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from wherry.engine import Engine

CONTAINERS = Table(
    columns=("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"),
    titles={
        "ID": "CONTAINER ID",
        "RunningFor": "CREATED",
        "CreatedAt": "CREATED AT",
        "LocalVolumes": "LOCAL VOLUMES",
    },
    raw=(
        "container_id: {{.ID}}\\nimage: {{.Image}}\\ncommand: {{.Command}}\\n"
        "created_at: {{.CreatedAt}}\\nstate: {{.State}}\\nstatus: {{.Status}}\\n"
        "names: {{.Names}}\\nlabels: {{.Labels}}\\nports: {{.Ports}}\\n"
    ),
)

FILTERS = (
    "ancestor", "before", "expose", "exited", "health", "id", "is-task", "isolation", "label",
    "label!", "name", "network", "publish", "since", "status", "volume",
)  # fmt: skip

_COMMAND_WIDTH = 20


@command(
    option("-a", "--all", type=bool, help="Show all containers (default shows just running)"),
    common.FILTER,
    common.FORMAT,
    option("-n", "--last", type=int, default=-1,
           help="Show n last created containers (includes all states)"),
    option("-l", "--latest", type=bool,
           help="Show the latest created container (includes all states)"),
    common.NO_TRUNC,
    option("-q", "--quiet", type=bool, help="Only display container IDs"),
    option("-s", "--size", type=bool, help="Display total file sizes"),
    examples="""\
  $ wherry ps -a --filter status=exited                what has ended
  $ wherry ps --format '{{.Names}}: {{.Status}}'       a line of one's own for each
  $ wherry rm -f $(wherry ps -aq)                      every container
""",
)  # fmt: skip
def ps(
    all: bool,  # noqa: A002
    filter: tuple[str, ...],  # noqa: A002
    format: str,  # noqa: A002
    last: int,
    latest: bool,
    no_trunc: bool,
    quiet: bool,
    size: bool,
) -> int:
    """List containers"""
    filters = parse_filters(filter, FILTERS)
    template = format or ("" if quiet else ConfigFile().text("psFormat"))
    limit = 1 if latest and last < 0 else max(last, 0)

    def action(engine: Engine) -> int:
        summaries = engine.containers.summaries(
            all=all or limit > 0,
            filters=filters,
            limit=limit,
            # It takes a walk through the container's files.
            size=size or ".Size" in template,
        )
        table = (
            CONTAINERS
            if not size
            else Table(
                columns=(*CONTAINERS.columns, "Size"), titles=CONTAINERS.titles, raw=CONTAINERS.raw
            )
        )
        rows = [row_of(summary, full=no_trunc) for summary in summaries]
        print_rows(rows, table, template=template, quiet=quiet)
        for error in engine.containers.damaged:
            complain(error.message, error.hint)
        return 0

    argv = ps.argv(
        all=all, filter=filter, format=template, last=last, latest=latest, no_trunc=no_trunc,
        quiet=quiet, size=size,
    )  # fmt: skip
    return execute(Command(argv=argv, action=action, brief=True))


def row_of(summary: Mapping[str, Any], *, full: bool = False) -> dict[str, Any]:
    """The fields that a template can ask for, of one container of /containers/json."""
    from wherry.human import SECOND, ellipsis, quote
    from wherry.times import ago, format_local_time

    created = summary["Created"] * SECOND
    text = summary["Command"]
    mounts = [_mount_name(mount) for mount in summary.get("Mounts") or ()]
    networks = (summary.get("NetworkSettings") or {}).get("Networks") or {}
    return {
        "ID": short_id(summary["Id"], full=full),
        "Image": _image(summary, full),
        "Command": quote(text if full else ellipsis(text, _COMMAND_WIDTH)),
        "CreatedAt": format_local_time(created),
        "RunningFor": ago(created),
        "Status": summary["Status"],
        "State": summary["State"],
        "Ports": format_ports(summary.get("Ports") or ()),
        "Names": ",".join(name.removeprefix("/") for name in summary["Names"]),
        "Mounts": ",".join(mounts if full else [ellipsis(name, 15) for name in mounts]),
        "LocalVolumes": str(sum(m.get("Driver") == "local" for m in summary.get("Mounts") or ())),
        "Networks": ",".join(networks),
        "Size": lambda: _size(summary),
        **label_fields(summary.get("Labels")),
    }


def _image(summary: Mapping[str, Any], full: bool) -> str:
    """The name that the container was made by; its digest where it was that."""
    name = str(summary["Image"]) or "<no image>"
    if not full and name.startswith(("sha256:", "sha512:")):
        return short_id(name)
    return name


def _mount_name(mount: Mapping[str, Any]) -> str:
    return str(mount.get("Name") or mount.get("Source") or "")


def _size(summary: Mapping[str, Any]) -> str:
    from wherry.human import human_size

    written = human_size(summary.get("SizeRw") or 0, 3)
    whole = summary.get("SizeRootFs") or 0
    return f"{written} (virtual {human_size(whole, 3)})" if whole else written


def format_ports(ports: Iterable[Mapping[str, Any]]) -> str:
    """docker's `0.0.0.0:80-82->80-82/tcp, 443/tcp, 0.0.0.0:8080->90/tcp`.

    Neighbours are one range where they are outside what they are inside; others come last.
    """
    ordered = sorted(ports, key=_place)
    texts: list[str] = []
    groups: dict[tuple[str, str], tuple[int, int]] = {}
    moved: list[str] = []
    for each in ordered:
        address, kind, inner = each.get("IP") or "", each["Type"], each["PrivatePort"]
        if address and each["PublicPort"] != inner:
            moved.append(f"{_host(address)}:{each['PublicPort']}->{inner}/{kind}")
            continue
        first, last = groups.get((address, kind)) or (inner, inner - 1)
        if inner != last + 1:
            texts.append(_format_group(address, kind, first, last))
            first = inner
        groups[address, kind] = (first, inner)
    texts += [_format_group(*key, *group) for key, group in groups.items()]
    return ", ".join(texts + moved)


def _place(port: Mapping[str, Any]) -> tuple[Any, ...]:
    outer = port.get("PublicPort") or 0
    return port["PrivatePort"], port.get("IP") or "", outer, port["Type"]


def _format_group(address: str, kind: str, first: int, last: int) -> str:
    inner = _range(first, last)
    return f"{_host(address)}:{inner}->{inner}/{kind}" if address else f"{inner}/{kind}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
