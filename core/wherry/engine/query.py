"""What can be asked of containers: lists with filters, details, processes, logs, prune."""

from __future__ import annotations

import os
import sys
import time

from wherry.engine import settle
from wherry.engine.documents import RUNNING, inspect, network_settings, summary
from wherry.errors import Conflict, NotFound, Unsupported, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from wherry.container.spec import HostConfig
    from wherry.container.store import Container
    from wherry.engine.containers import Containers
    from wherry.filters import Filters

_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_HEALTH = ("none", "starting", "healthy", "unhealthy")


# ---- lists ----


def list_containers(
    containers: Containers,
    *,
    all: bool = False,  # noqa: A002
    filters: Filters | None = None,
    limit: int = 0,
    size: bool = False,
) -> list[dict[str, Any]]:
    """Containers as /containers/json has them, the newest first."""
    filters = filters or {}
    everything = all or limit > 0 or bool({"status", "exited"} & filters.keys())
    found = [
        container
        for container in containers.all()
        if (everything or container.state["Status"] in RUNNING) and not container.is_build_step()
    ]
    if filters:
        found = _Filter(containers, filters).apply(found)
    if limit > 0:
        found = found[:limit]
    now = time.time_ns()
    entries = []
    for container in found:
        entry = summary(container, now)
        if size:
            entry["SizeRw"], entry["SizeRootFs"] = sizes(containers, container)
        entries.append(entry)
    return entries


class _Filter:
    """docker's filters of `ps`, asked of containers that are loaded."""

    def __init__(self, containers: Containers, filters: Filters) -> None:
        self._containers = containers
        self._filters = filters
        for key, words in (("status", _STATES), ("health", _HEALTH)):
            for given in filters.get(key, ()):
                if given not in words:
                    raise UsageError(f"invalid filter '{key}={given}'")
        self._before = self._moment("before", min)
        self._since = self._moment("since", max)
        self._exit_codes = [self._code(text) for text in filters.get("exited", ())]
        self._images = self._ancestors()

    def apply(self, found: list[Container]) -> list[Container]:
        return [container for container in found if self._agrees(container)]

    def _moment(self, key: str, choose: Any) -> str:
        """When the containers named by `before` or `since` were made."""
        names = self._filters.get(key, ())
        return (
            str(choose(self._containers.find(name).record["Created"] for name in names))
            if names
            else ""
        )

    @staticmethod
    def _code(text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise UsageError(f"invalid filter 'exited={text}'") from None

    def _ancestors(self) -> set[str]:
        """The layers on which an image named by `ancestor` ends, and those names."""
        wanted: set[str] = set()
        for name in self._filters.get("ancestor", ()):
            wanted.add(name)
            try:
                wanted.add(self._containers.engine.image_store.find(name).diff_ids[-1])
            except (NotFound, UsageError, IndexError):
                continue
        return wanted

    def _agrees(self, container: Container) -> bool:
        from wherry import filters as ask

        filters = self._filters
        body, state, record = container.body, container.state, container.record
        created = str(record["Created"])
        health = (state.get("Health") or {}).get("Status") or "none"
        if not (
            ask.matches_id(filters, container.id)
            and ask.matches_name(filters, container.name)
            and ask.matches_labels(filters, body.get("Labels"))
            and ask.matches_exactly(filters, "status", state["Status"])
            and ask.matches_exactly(filters, "health", health)
        ):
            return False
        if self._exit_codes and (
            state["Status"] != "exited" or state["ExitCode"] not in self._exit_codes
        ):
            return False
        if (self._before and created >= self._before) or (self._since and created <= self._since):
            return False
        return (
            self._has_ancestor(container)
            and self._has_network(container)
            and self._has_volume(container)
            and self._has_port(body.get("ExposedPorts") or {}, "expose")
            and self._has_port(body["HostConfig"].get("PortBindings") or {}, "publish")
        )

    def _has_ancestor(self, container: Container) -> bool:
        record = container.record
        own = {record["ImageName"], record["Image"], *(record.get("Layers") or ())}
        return not self._images or bool(self._images & own)

    def _has_network(self, container: Container) -> bool:
        wanted = self._filters.get("network")
        if not wanted:
            return True
        networks = network_settings(container)["Networks"]
        return bool({*networks, *(each["NetworkID"] for each in networks.values())} & set(wanted))

    def _has_volume(self, container: Container) -> bool:
        wanted = self._filters.get("volume")
        points = container.record.get("Mounts") or ()
        known = {point.get(key) for point in points for key in ("Name", "Source", "Destination")}
        return not wanted or bool(known & set(wanted))

    def _has_port(self, ports: dict[str, Any], key: str) -> bool:
        from wherry.container.ports import parse_expose

        wanted = self._filters.get(key)
        if not wanted:
            return True
        return any(port in ports for text in wanted for port in parse_expose(text))


# ---- one container ----


def inspect_container(containers: Containers, name: str, *, size: bool = False) -> dict[str, Any]:
    """docker's inspect of a container."""
    container = containers.find(name)
    document = inspect(container)
    if size:
        document["SizeRw"], document["SizeRootFs"] = sizes(containers, container)
    return document


def sizes(containers: Containers, container: Container) -> tuple[int, int]:
    """The bytes of the container's own layer, and of that with the image below."""
    from wherry.image.layers import layer_size

    upper = container.path("upper")
    own = 0
    # A container of a `--rootfs` has no layer of its own.
    if os.path.isdir(upper):
        own = int(containers.runtime.unshared(lambda: _own_size(upper)))
    return own, own + sum(map(layer_size, container.record.get("Layers") or ()))


def _own_size(upper: str) -> int:
    from wherry.container.copy import tree_size

    size = tree_size(upper)
    # The link that every container gets is no change of its own.
    table = os.path.join(upper, "etc/mtab")
    return size - os.lstat(table).st_size if os.path.islink(table) else size


def top(
    containers: Containers, name: str, options: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """The processes of a container as ps(1) shows them: titles and rows."""
    container = containers.find(name)
    if container.state["Status"] not in RUNNING:
        raise Conflict(f"container {container.id} is not running")
    if not options or list(options) == ["-ef"]:
        table: tuple[list[str], list[list[str]]] = containers.runtime.process_table(container)
        container.event("top")
        return table
    import subprocess

    pids = {str(pid) for pid in containers.runtime.processes(container)}
    try:
        result = subprocess.run(["ps", *options], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unsupported(
            "there is no ps on this system",
            hint="Debian's package procps has it; without options none is needed",
        ) from None
    if result.returncode:
        reason = result.stderr.strip().partition("\n")[0] or f"it ended with {result.returncode}"
        raise UsageError(f"ps: {reason.removeprefix('ps: ')}")
    titles, *lines = result.stdout.splitlines() or [""]
    heads = titles.split()
    if "PID" not in heads:
        raise UsageError("Couldn't find PID field in ps output")
    column = heads.index("PID")
    rows = [line.split(None, len(heads) - 1) for line in lines]
    container.event("top")
    return heads, [row for row in rows if len(row) > column and row[column] in pids]


def stats(containers: Containers, name: str) -> dict[str, Any]:
    """One sample of what a container uses, as the API's /stats has it."""
    container = containers.find(name)
    sample: dict[str, Any] = {
        "id": container.id,
        "name": f"/{container.name}",
        "read_nano": time.time_ns(),
    }
    if container.state["Status"] in RUNNING:
        sample.update(containers.runtime.usage(container))
    return sample


def update(containers: Containers, name: str, changes: HostConfig) -> None:
    """Put new limits into a container's record, and on its processes if it runs."""
    from wherry.container.check import check_lifetime, check_resources, check_update
    from wherry.container.resources import changed_limits
    from wherry.engine import limits

    container = containers.find(name)
    with container.lock():
        container.reload_record()
        before: HostConfig = container.body["HostConfig"]
        check_update(before, changes)
        host: HostConfig = {**before, **changes}
        check_resources(host)
        check_lifetime(container.body, host)  # type: ignore[arg-type]
        new = changed_limits(host, changes)
        warnings = limits.settle(containers.runtime, container.id, {"HostConfig": new})
        if container.reload()["Status"] in ("running", "paused"):
            limits.apply(containers.runtime, container, new)
        if "MemorySwap" in new:
            host["MemorySwap"] = new["MemorySwap"]
        container.record["Body"]["HostConfig"] = host
        container.write_record()
    container.event("update")
    for warning in warnings:
        print(f"wherry: WARNING: {warning}", file=sys.stderr)


# ---- logs ----


def logs(
    containers: Containers,
    name: str,
    *,
    follow: bool = False,
    since: int = 0,
    until: int = 0,
    tail: int = -1,
) -> Iterator[dict[str, Any]]:
    """The records of a container's log; with `follow`, also those to come, until it ends."""
    from wherry.container.log_drivers import driver_of, is_kept
    from wherry.container.logs import LogReader
    from wherry.times import parse_time

    container = containers.find(name)
    if not is_kept(*driver_of(container.body["HostConfig"])):
        raise UsageError("configured logging driver does not support reading")
    path = container.path("container.log")
    reader = LogReader(path)
    changed = containers.runtime.watch([path]) if follow else None
    if tail >= 0 and not since and not until:
        yield from reader.tail(tail)
    else:
        within = (
            record
            for record in reader.history()
            if since <= parse_time(record["time"]) <= (until or 1 << 63)
        )
        yield from within if tail < 0 else _last(within, tail)
    while changed is not None:
        # Looked at first: what it writes last is in the log before its end is recorded.
        running = container.reload()["Status"] in RUNNING
        for record in reader.more():
            if until and parse_time(record["time"]) > until:
                return
            yield record
        if not running or (until and time.time_ns() > until):
            return
        if not changed(1):
            # A monitor that was killed tells nobody.
            settle.settle(container, containers.store, containers.runtime)


def _last(records: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    from collections import deque

    return list(deque(records, count))


# ---- prune ----


def prune(containers: Containers, filters: Filters) -> dict[str, Any]:
    """Remove the containers that do not run."""
    from wherry import events
    from wherry import filters as ask
    from wherry.times import parse_time, parse_timestamp

    moments = [parse_timestamp(text) for text in filters.get("until", ())]
    deleted: list[str] = []
    reclaimed = 0
    for container in containers.all():
        if container.state["Status"] in RUNNING or container.is_build_step():
            continue
        if not ask.matches_labels(filters, container.body.get("Labels")):
            continue
        if moments and parse_time(container.record["Created"]) >= min(moments):
            continue
        size, _ = sizes(containers, container)
        try:
            containers.remove(container.id)
        except (Conflict, NotFound):
            continue  # it was started or removed meanwhile
        deleted.append(container.id)
        reclaimed += size
    events.record_prune("container", reclaimed)
    return {"ContainersDeleted": deleted, "SpaceReclaimed": reclaimed}
