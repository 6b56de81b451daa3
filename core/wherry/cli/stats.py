"""`wherry stats`: what containers use, once or as it changes."""

from __future__ import annotations

import sys
import time

from wherry.backend import Command, execute
from wherry.cli import common
from wherry.cli.grammar import argument, command, option
from wherry.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.cli.tables import Table
    from wherry.engine import Engine

    Sample = dict[str, Any]

_SECONDS = 1.0


def _table() -> Table:
    from wherry.cli.tables import Table

    return Table(
        columns=("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"),
        titles={
            "ID": "CONTAINER ID",
            "CPUPerc": "CPU %",
            "MemUsage": "MEM USAGE / LIMIT",
            "MemPerc": "MEM %",
            "NetIO": "NET I/O",
            "BlockIO": "BLOCK I/O",
        },
    )


@command(
    option("-a", "--all", type=bool, help="Show all containers (default shows just running)"),
    common.FORMAT,
    option("--no-stream", type=bool,
           help="Disable streaming stats and only pull the first result"),
    common.NO_TRUNC,
    argument("container", nargs=-1, required=False),
    examples="""\
  $ wherry stats --no-stream                           once, for every running container
  $ wherry stats --format '{{.Name}} {{.MemUsage}}' web
""",
)  # fmt: skip
def stats(
    container: tuple[str, ...],
    all: bool,  # noqa: A002
    format: str,  # noqa: A002
    no_stream: bool,
    no_trunc: bool,
) -> int:
    """Display a live stream of container(s) resource usage statistics"""

    def action(engine: Engine) -> int:
        return _watch(engine, container, all, format, once=no_stream, full=no_trunc)

    argv = stats.argv(
        container=container, all=all, format=format, no_stream=no_stream, no_trunc=no_trunc
    )
    return execute(Command(argv=argv, action=action))


def _watch(
    engine: Engine,
    names: Sequence[str],
    everything: bool,
    template: str,
    *,
    once: bool,
    full: bool,
) -> int:
    from wherry.cli.tables import format_rows

    table = _table()
    earlier = _samples(engine, names, everything)
    while True:
        # The share of a CPU is a difference, so that even one look takes a moment.
        time.sleep(_SECONDS / 2 if once else _SECONDS)
        samples = _samples(engine, names, everything, earlier)
        if names and not samples:
            return 0  # all that were asked for have been removed
        rows = [
            row_of(sample, earlier.get(container_id), full=full)
            for container_id, sample in samples.items()
        ]
        text = format_rows(rows, table, template=template)
        if not once and sys.stdout.isatty():
            # Over what was there, then clear to the end: no flicker.
            text = "\033[H" + text.replace("\n", "\033[K\n") + "\033[J"
        sys.stdout.write(text)
        sys.stdout.flush()
        if once:
            return 0
        earlier = samples


def _samples(
    engine: Engine,
    names: Sequence[str],
    everything: bool,
    earlier: Mapping[str, Sample] | None = None,
) -> dict[str, Sample]:
    """A sample of each container by its id; those that were there `earlier` may have gone."""
    found: dict[str, Sample] = {}
    for name in names or [each["Id"] for each in engine.containers.summaries(all=everything)]:
        try:
            sample = engine.containers.stats(name)
        except NotFound:
            if names and earlier is None:
                raise
            continue
        # docker shows a container by the name that it was asked for.
        found[sample["id"]] = {**sample, "asked": name}
    return found


def row_of(sample: Sample, earlier: Sample | None, *, full: bool = False) -> dict[str, Any]:
    """The fields of one container's row, from two samples in the form of the API's /stats."""
    from wherry.cli.tables import short_id
    from wherry.human import binary_size, human_size

    memory = sample.get("memory_stats") or {}
    used, limit = memory.get("usage") or 0, memory.get("limit") or 0
    # What the kernel can drop at any time is not counted, as in docker.
    used -= min(used, (memory.get("stats") or {}).get("inactive_file") or 0)
    received, sent = _network(sample)
    read, written = _block(sample)
    running = bool(sample.get("pids_stats"))
    asked = sample.get("asked", sample["id"])
    return {
        "Container": short_id(asked, full=full) if asked == sample["id"] else asked,
        "ID": short_id(sample["id"], full=full),
        "Name": sample["name"].removeprefix("/"),
        "CPUPerc": f"{cpu_share(sample, earlier):.2f}%" if running else "--",
        "MemUsage": f"{binary_size(used)} / {binary_size(limit)}" if running else "-- / --",
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%" if running else "--",
        "NetIO": f"{human_size(received, 3)} / {human_size(sent, 3)}" if running else "--",
        "BlockIO": f"{human_size(read, 3)} / {human_size(written, 3)}" if running else "--",
        "PIDs": str(sample["pids_stats"].get("current") or 0) if running else "--",
    }


def cpu_share(sample: Sample, earlier: Sample | None) -> float:
    """The CPU time between two samples, in percent of one CPU."""
    if earlier is None:
        return 0.0
    used = _cpu(sample) - _cpu(earlier)
    passed = sample["read_nano"] - earlier["read_nano"]
    return 100 * used / passed if used > 0 and passed > 0 else 0.0


def _cpu(sample: Sample) -> int:
    usage: Mapping[str, int] = (sample.get("cpu_stats") or {}).get("cpu_usage") or {}
    return usage.get("total_usage") or 0


def _network(sample: Sample) -> tuple[int, int]:
    networks = (sample.get("networks") or {}).values()
    return sum(each["rx_bytes"] for each in networks), sum(each["tx_bytes"] for each in networks)


def _block(sample: Sample) -> tuple[int, int]:
    entries = (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    totals = {"read": 0, "write": 0}
    for entry in entries:
        if entry["op"].lower() in totals:
            totals[entry["op"].lower()] += entry["value"]
    return totals["read"], totals["write"]
