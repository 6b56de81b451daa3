"""What can be done with networks."""

from __future__ import annotations

from wherry import events
from wherry.container.namespaces import mode
from wherry.container.networks import networks_of
from wherry.engine import networking
from wherry.engine.documents import RUNNING
from wherry.errors import AccessDenied, Conflict, CorruptState, NotFound, UsageError
from wherry.filters import (
    matches,
    matches_exactly,
    matches_id,
    matches_labels,
    parse_boolean,
)
from wherry.network import leases
from wherry.network.endpoints import bridge_of
from wherry.network.store import PREDEFINED, NetworkStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.container.store import Container
    from wherry.engine import Engine
    from wherry.filters import Filters
    from wherry.network.store import Record

    # `list` is a method below.
    Names = list[str]
    UsersOfNetworks = dict[str, list[str]]

_HOST_IS_FOREVER = "container cannot be disconnected from host network or connected to host network"


class Networks:
    """The verbs of `wherry network`; answers are the documents of the Docker Engine API."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runtime = engine.runtime
        self.store = NetworkStore(engine.runtime.network().subnets)

    def create(
        self,
        name: str,
        *,
        driver: str = "bridge",
        subnets: Sequence[Record] = (),
        ipv6: bool = False,
        internal: bool = False,
        attachable: bool = False,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Make a network; its id."""
        if driver in ("host", "null"):
            raise AccessDenied(f'only one instance of "{driver}" network is allowed')
        if driver != "bridge":
            raise NotFound(
                f"could not find plugin {driver} in v1 plugin registry: plugin not found",
                hint="the one network driver is bridge",
            )
        record = self.store.create(
            name,
            subnets=subnets,
            ipv6=ipv6,
            internal=internal,
            attachable=attachable,
            options=dict(options or {}),
            labels=dict(labels or {}),
        )
        try:
            if not self._runtime.is_rootless():
                self._runtime.network().ensure(bridge_of(record))
        except BaseException:
            self.store.remove(record)
            raise
        _event("create", record)
        return str(record["Id"])

    def list(self, filters: Filters | None = None) -> list[Record]:
        """The networks that all of `filters` let through, by name."""
        filters = dict(filters or {})
        _check_filters(filters)
        dangling = parse_boolean(filters, "dangling")
        used = self._users() if dangling is not None else {}
        found = []
        for record in self.store.networks():
            is_dangling = record["Name"] not in (*PREDEFINED, *used)
            if _passes(record, filters) and dangling in (None, is_dangling):
                found.append(record)
        return found

    def inspect(self, name: str) -> Record:
        """One network, with the containers on it. Raises NotFound."""
        record = self.store.find(name)
        containers = {}
        for container_id, endpoint in leases.endpoints(record["Id"]).items():
            containers[container_id] = {
                "Name": endpoint["Container"],
                "EndpointID": endpoint["EndpointID"],
                "MacAddress": endpoint["MacAddress"],
                "IPv4Address": _with_length(endpoint, "IPAddress", "IPPrefixLen"),
                "IPv6Address": _with_length(endpoint, "GlobalIPv6Address", "GlobalIPv6PrefixLen"),
            }
        return {**record, "Containers": containers}

    def is_there(self, name: str) -> bool:
        try:
            self.store.find(name)
        except NotFound:
            return False
        except CorruptState:
            pass
        return True

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a network that no running container is on.

        With `force` also one whose record cannot be read.
        """
        try:
            record = self.store.find(name)
        except CorruptState:
            if not force:
                raise
            self.store.discard(name)
            return
        if record["Name"] in PREDEFINED:
            raise AccessDenied(f"{record['Name']} is a pre-defined network and cannot be removed")
        with self.store.locked():
            networking.settle_network(record["Id"], self._runtime)
            if on_it := leases.endpoints(record["Id"]):
                listed = ", ".join(
                    f'name:"{each["Container"]}" id:"{each["EndpointID"][:12]}"'
                    for each in on_it.values()
                )
                raise AccessDenied(
                    f"error while removing network: network {record['Name']} has active endpoints"
                    f" ({listed})",
                    hint="stop the containers, or take them off: `wherry network disconnect`",
                )
            self._runtime.network().remove(bridge_of(record))
            self.store.remove(record)
        leases.forget(record["Id"])
        _event("destroy", record)

    def prune(self, filters: Filters | None = None) -> Names:
        """Remove the networks that no container uses, running or not; their names."""
        filters = dict(filters or {})
        used = self._users()
        removed = []
        for record in self.store.networks():
            if record["Name"] in (*PREDEFINED, *used) or not _is_old_enough(record, filters):
                continue
            if matches_labels(filters, record["Labels"]):
                try:
                    self.remove(record["Name"])
                except (AccessDenied, NotFound):
                    continue  # somebody has come to use it, or has removed it
                removed.append(str(record["Name"]))
        events.record_prune("network")
        return removed

    def remove_all(self) -> None:
        """Remove every network, the default one as well; there are no containers any more."""
        for record in self.store.recorded():
            self._runtime.network().remove(bridge_of(record))
            self.store.remove(record)
            leases.forget(record["Id"])

    # ---- containers on networks ----

    def connect(self, name: str, container_name: str, settings: Mapping[str, Any]) -> None:
        """Put a container on a network, now if it runs, and from its next start on."""
        record = self.store.find(name)
        container = self._engine.containers.find(container_name)
        given = networks_of(container)
        _check_mode(container, record["Name"], given)
        if record["Name"] in given:
            raise AccessDenied(
                f"endpoint with name {container.name} already exists in network {record['Name']}"
            )
        networking.check_settings(record, settings)
        if container.state["Status"] in RUNNING:
            self._engine.containers.ask(
                container,
                {"op": "network", "do": "connect", "name": record["Name"], "settings": settings},
            )
        self._note(container, {**given, record["Name"]: settings})

    def disconnect(self, name: str, container_name: str, *, force: bool = False) -> None:
        """Take a container off a network. With `force` it need not be there any more."""
        record = self.store.find(name)
        try:
            container = self._engine.containers.find(container_name)
        except NotFound:
            if not force:
                raise
            self._forget_endpoint(record["Id"], container_name)
            return
        given = networks_of(container)
        if record["Name"] == "host":
            raise Conflict(_HOST_IS_FOREVER)
        if record["Name"] not in given:
            raise AccessDenied(
                f"container {container.id} is not connected to network {record['Name']}"
            )
        if container.state["Status"] in RUNNING:
            self._engine.containers.ask(
                container, {"op": "network", "do": "disconnect", "name": record["Name"]}
            )
        del given[record["Name"]]
        self._note(container, given)

    def _forget_endpoint(self, network_id: str, container_name: str) -> None:
        """Take back the addresses of a container that is no more."""
        for container_id, each in leases.endpoints(network_id).items():
            if container_name in (container_id, each["Container"]):
                leases.release(network_id, container_id)
                return
        raise NotFound(f"endpoint {container_name} not found")

    def publish(self, container_name: str, bindings: Mapping[str, Any]) -> None:
        """Publish ports of a container, now if it runs, and from its next start on."""
        container = self._engine.containers.find(container_name)
        self._change_ports(container, "publish", bindings)
        given = dict(container.body["HostConfig"].get("PortBindings") or {})
        for port, wanted in bindings.items():
            given[port] = [*(given.get(port) or ()), *wanted]
        self._note_ports(container, given)

    def unpublish(self, container_name: str, bindings: Mapping[str, Any]) -> None:
        """Take ports of a container back."""
        container = self._engine.containers.find(container_name)
        self._change_ports(container, "unpublish", bindings)
        given = dict(container.body["HostConfig"].get("PortBindings") or {})
        for port, wanted in bindings.items():
            kept = [
                each
                for each in given.pop(port, None) or ()
                if not any(_says(one, each) for one in wanted)
            ]
            if kept:
                given[port] = kept
        self._note_ports(container, given)

    def _change_ports(self, container: Container, do: str, bindings: Mapping[str, Any]) -> None:
        asked = mode(container.body, "network")
        if asked in ("none", "host") or asked.startswith("container:"):
            raise Conflict(f"container {container.name} has no network of its own to publish from")
        if container.state["Status"] in RUNNING:
            message = {"op": "network", "do": do, "bindings": bindings}
            self._engine.containers.ask(container, message)

    def _note_ports(self, container: Container, bindings: Mapping[str, Any]) -> None:
        with container.lock():
            container.reload_record()
            container.body["HostConfig"]["PortBindings"] = bindings
            exposed = container.body.get("ExposedPorts") or {}
            container.body["ExposedPorts"] = {**exposed, **{port: {} for port in bindings}}
            container.write_record()

    def _note(self, container: Container, networks: Mapping[str, Any]) -> None:
        with container.lock():
            container.reload_record()
            container.record["Networks"] = networks
            container.write_record()

    def _users(self) -> UsersOfNetworks:
        """The ids of the containers that are to be on each network, by its name."""
        users: UsersOfNetworks = {}
        for container in self._engine.container_store.all():
            for name in networks_of(container):
                users.setdefault(self._name(name), []).append(container.id)
        return users

    def _name(self, name: str) -> str:
        try:
            return str(self.store.find(name)["Name"])
        except (NotFound, UsageError):
            return name


def _says(asked: Mapping[str, str], binding: Mapping[str, str]) -> bool:
    return all(
        not asked.get(key) or asked[key] == binding.get(key) for key in ("HostIp", "HostPort")
    )


def _check_mode(container: Container, network: str, given: Mapping[str, Any]) -> None:
    asked = mode(container.body, "network")
    if asked.startswith("container:"):
        raise Conflict(
            "container sharing network namespace with another container or host cannot be"
            " connected to any other network"
        )
    if "host" in (asked, network):
        raise Conflict(_HOST_IS_FOREVER)
    if network == "none" or (asked == "none" and not given):
        raise Conflict(
            "container cannot be connected to multiple networks with one of the networks"
            " in private (none) mode"
        )


def _event(action: str, record: Record) -> None:
    attributes = {"name": record["Name"], "type": record["Driver"]}
    events.record("network", action, record["Id"], attributes)


def _with_length(endpoint: Mapping[str, Any], address: str, length: str) -> str:
    return f"{endpoint[address]}/{endpoint[length]}" if endpoint[address] else ""


def _check_filters(filters: Filters) -> None:
    for kind in filters.get("type", ()):
        if kind not in ("custom", "builtin"):
            raise UsageError(f"invalid filter: 'type'='{kind}'", hint="it is custom or builtin")


def _passes(record: Record, filters: Filters) -> bool:
    kind = "builtin" if record["Name"] in PREDEFINED else "custom"
    return (
        matches(filters, "name", lambda part: part in record["Name"])
        and matches_id(filters, record["Id"])
        and matches_exactly(filters, "driver", record["Driver"])
        and matches_exactly(filters, "scope", record["Scope"])
        and matches_exactly(filters, "type", kind)
        and matches_labels(filters, record["Labels"])
    )


def _is_old_enough(record: Record, filters: Filters) -> bool:
    if "until" not in filters:
        return True
    from wherry.times import parse_time, parse_timestamp

    limits = [parse_timestamp(text) for text in filters["until"]]
    return all(parse_time(record["Created"]) < limit for limit in limits)
