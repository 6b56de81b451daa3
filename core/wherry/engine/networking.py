"""Connecting a container: from what was asked for to leases, interfaces and ports.

    RUN/containers/<id>/network.json   what was made, written before it is made

Called in the container's monitor, which alone changes its state.
"""

from __future__ import annotations

import os

from wherry import events, paths
from wherry.container.namespaces import mode
from wherry.container.networks import networks_of, wanted
from wherry.container.ports import shown_ports, wanted_ports
from wherry.engine import published as machine
from wherry.errors import Conflict, CorruptState, NotFound, Unsupported, UsageError
from wherry.files import read_json, write_json
from wherry.network import endpoints, leases
from wherry.network.files import Attachment, write_files
from wherry.network.store import NetworkStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.container.store import Container
    from wherry.network.store import Record
    from wherry.runtime import HostNetwork, Runtime

    Endpoint = dict[str, Any]
    Made = dict[str, Any]
    Settings = Mapping[str, Any]
    Service = dict[str, Any]

_RECORD = "network.json"
_ATTEMPTS = 64
"""How many ports are tried that a machine's host may have given away."""
# What a container has: its endpoints, the ports it publishes, where the firewall sends what
# comes for those, and the helper of the default network in user mode.
_NOTHING: Made = {"Endpoints": [], "Published": [], "Targets": [], "Helper": None}
RESOLVER = "127.0.0.11"


def connect(container: Container, pid: int, runtime: Runtime) -> list[Service]:
    """Give a created container its networks; what its monitor has to serve from now on."""
    asked = networks_of(container)
    host = runtime.network()
    if runtime.is_rootless() and list(asked) == ["bridge"]:
        return _connect_in_user_mode(container, pid, runtime)
    store = NetworkStore(host.subnets)
    networks = [(store.find(name), settings) for name, settings in asked.items()]
    if runtime.is_rootless():
        _write_record(container, _NOTHING)  # or nobody would look after what is made from here
    with host.used():
        try:
            for record, settings in networks:
                check_settings(record, settings)
                ensure(record, store, runtime)
        except Unsupported:
            if list(asked) != ["bridge"]:
                raise
            # A kernel without bridges, or somebody else's.
            return _connect_in_user_mode(container, pid, runtime)
        return _connect(container, pid, runtime, networks)


def ensure(record: Record, store: NetworkStore, runtime: Runtime) -> None:
    """Have a network's bridge, and what others had who run, if all of it is gone."""
    host = runtime.network()
    if host.ensure(endpoints.bridge_of(record)):
        _restore(store, host, runtime)


def _restore(store: NetworkStore, host: HostNetwork, runtime: Runtime) -> None:
    """Have what runs connected again.

    Somebody has flushed all rules of this host, or ended the process that keeps the
    networks of an unprivileged user.
    """
    from wherry.container.store import ContainerStore

    for record in store.recorded():
        settle_network(record["Id"], runtime)
        on_it = leases.endpoints(record["Id"])
        if on_it:
            host.ensure(endpoints.bridge_of(record))
        for container_id in on_it:
            try:
                made = read_json(os.path.join(paths.run_container(container_id), _RECORD))
                pid = ContainerStore().load(container_id).state["Pid"]
            except (FileNotFoundError, CorruptState, NotFound):
                continue
            if pid:
                own = [each for each in made["Endpoints"] if each["NetworkID"] == record["Id"]]
                host.renew(pid, own, made["Targets"])


def check_networks(body: Mapping[str, Any], runtime: Runtime) -> None:
    """Raise where a container could never be connected to what its body names."""
    network = mode(body, "network")
    if network in ("none", "host") or network.startswith("container:"):
        return
    asked = wanted(body)
    if list(asked) == ["bridge"] and not asked["bridge"]:
        return  # there always is one
    store = NetworkStore(runtime.network().subnets)
    for name, settings in asked.items():
        check_settings(store.find(name), settings)


def _connect_in_user_mode(container: Container, pid: int, runtime: Runtime) -> list[Service]:
    published, helper, services = runtime.connect_network(container, pid)
    made = {**_NOTHING, "Published": published, "Helper": helper}
    try:
        _write_record(container, made)
        machine.publish(container.id, shown_ports(published))
    except BaseException:
        runtime.network().let_go(published)
        raise
    _tell(container, made, pid, runtime)
    return services


def _connect(
    container: Container, pid: int, runtime: Runtime, networks: list[tuple[Record, Settings]]
) -> list[Service]:
    host = runtime.network()
    wanted = wanted_ports(container.body)
    if wanted:
        # Whoever clears up after a kill has to know that the host may have published them.
        _write_record(container, _NOTHING)
    published = _hold(container, wanted, host)
    try:
        joined = [
            _lease(container, record, settings, f"eth{number}", runtime)
            for number, (record, settings) in enumerate(networks)
        ]
        endpoints.choose_default_route(joined)
        targets = host.targets(published, joined)
        made = {"Endpoints": joined, "Published": published, "Targets": targets, "Helper": None}
        _write_record(container, made)
        host.attach(pid, joined)
        host.publish(targets, joined)
        services = host.services(published, joined, pid)
        if any(each["DNSNames"] for each in joined):
            services.append(host.resolver(container, pid))
    except BaseException:
        host.let_go(published)
        raise
    _tell(container, made, pid, runtime)
    for each in joined:
        _event("connect", each, container.id)
    return services


def _hold(
    container: Container,
    bindings: dict[str, Any],
    host: HostNetwork,
    others: Sequence[dict[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Ports that are free here and, in a machine, on its host too, beside those it has already.

    Where any port will do, and the host has another use for one, it is another. Raises Conflict.
    """
    busy: set[tuple[str, int]] = set()
    refused: Conflict | None = None
    for _ in range(_ATTEMPTS):
        try:
            published = host.hold(bindings, busy)
        except Conflict as error:
            raise refused or error from None
        try:
            machine.publish(container.id, shown_ports([*others, *published]))
        except BaseException as error:
            host.let_go(published)
            if not isinstance(error, machine.Busy):
                raise
            refused = error
            busy.add(error.port)
        else:
            return published
    assert refused is not None
    raise refused


def _lease(
    container: Container, record: Record, settings: Settings, interface: str, runtime: Runtime
) -> Endpoint:
    try:
        return endpoints.join(container, record, settings, interface)
    except Conflict:
        settle_network(record["Id"], runtime)
    return endpoints.join(container, record, settings, interface)


def settle_network(network_id: str, runtime: Runtime) -> None:
    """Let no container be taken for one on a network whose monitor was killed."""
    from wherry.container.store import ContainerStore
    from wherry.engine.settle import settle

    store = ContainerStore()
    for container_id in leases.endpoints(network_id):
        try:
            settle(store.load(container_id), store, runtime)
        except NotFound:
            leases.release(network_id, container_id)


def _event(action: str, endpoint: Endpoint, container_id: str) -> None:
    attributes = {"container": container_id, "name": endpoint["Network"], "type": "bridge"}
    events.record("network", action, endpoint["NetworkID"], attributes)


def _write_record(container: Container, made: Made) -> None:
    """What to take back, whoever does it."""
    write_json(os.path.join(container.run_directory, _RECORD), made)


def _tell(container: Container, made: Made, pid: int, runtime: Runtime) -> None:
    """Write the container's files, and its state."""
    joined = made["Endpoints"]
    keys = ("IPAddress", "GlobalIPv6Address")
    addresses = [each[key] for each in joined for key in keys if each[key]]
    has_names = any(each["DNSNames"] for each in joined)
    write_files(
        container,
        Attachment(
            addresses=addresses or runtime.addresses(pid),
            gateways=runtime.network().addresses(joined),
            nameservers=(RESOLVER,) if has_names else (),
            has_ipv6=bool(made["Helper"]) or any(each["GlobalIPv6Address"] for each in joined),
            links=_links(container, joined),
        ),
    )
    shown = {each["Network"]: endpoints.shown(each) for each in joined}
    network: dict[str, Any] = {"Ports": shown_ports(made["Published"])}
    container.write_state(Network={**network, "Networks": shown} if shown else network)


def _links(container: Container, joined: list[Endpoint]) -> list[tuple[str, str]]:
    """Where the containers of `--link` are on the networks of this one, and their names."""
    texts = [*(container.body["HostConfig"].get("Links") or ())]
    texts += [text for each in joined for text in each["Links"] or ()]
    if not texts:
        return []
    from wherry.container.store import ContainerStore
    from wherry.engine.documents import RUNNING

    found = []
    ours = {each["NetworkID"] for each in joined}
    for text in texts:
        name, _, alias = text.partition(":")
        try:
            other = ContainerStore().find(name)
        except NotFound:
            continue  # it has been removed since
        if other.state["Status"] not in RUNNING:
            continue
        theirs = (other.state.get("Network") or {}).get("Networks") or {}
        called = " ".join(dict.fromkeys((alias or name, other.id[:12], other.name)))
        found += [
            (each["IPAddress"], called)
            for each in theirs.values()
            if each["NetworkID"] in ours and each["IPAddress"]
        ]
    return found


# ---- while the container runs ----


def change(
    container: Container, pid: int, runtime: Runtime, message: Mapping[str, Any]
) -> tuple[list[Service], list[str]]:
    """What the monitor is asked to do; what to serve beside, and the keys of what no longer.

    {"do": "connect", "name", "settings"}, {"do": "disconnect", "name"}: networks
    {"do": "publish", "bindings"}, {"do": "unpublish", "bindings"}: ports
    {"do": "rename", "old"}: what others call it
    """
    try:
        made = read_json(os.path.join(container.run_directory, _RECORD))
    except FileNotFoundError:
        made = dict(_NOTHING)
    running = _Running(container, pid, runtime, made)
    if message["do"] == "connect":
        with runtime.network().used():
            return running.join(message["name"], message["settings"]), []
    if message["do"] == "disconnect":
        return running.leave(message["name"])
    if message["do"] == "rename":
        running.rename(message["old"])
        return [], []
    if message["do"] == "publish":
        return running.publish(message["bindings"]), []
    return [], running.unpublish(message["bindings"])


class _Running:
    """A container that runs, and what it has."""

    def __init__(self, container: Container, pid: int, runtime: Runtime, made: Made) -> None:
        self._container = container
        self._pid = pid
        self._runtime = runtime
        self._host = runtime.network()
        self._made = made

    def _write(self) -> None:
        _write_record(self._container, self._made)

    def _tell(self) -> None:
        _tell(self._container, self._made, self._pid, self._runtime)

    def join(self, name: str, settings: Settings) -> list[Service]:
        store = NetworkStore(self._host.subnets)
        record = store.find(name)
        self._write()
        ensure(record, store, self._runtime)
        made = self._made
        before = list(made["Endpoints"])
        taken = {each["Wherry"]["Interface"] for each in before}
        if made["Helper"]:
            taken.add("eth0")
        interface = next(name for name in map("eth{}".format, range(1000)) if name not in taken)
        endpoint = _lease(self._container, record, settings, interface, self._runtime)
        has_route = made["Helper"] or any(each["Wherry"]["DefaultRoute"] for each in before)
        endpoint["Wherry"]["DefaultRoute"] = not has_route and bool(endpoint["Gateway"])
        made["Endpoints"] = [*before, endpoint]
        self._write()
        try:
            self._host.attach(self._pid, [endpoint])
            had_names = any(each["DNSNames"] for each in before)
            services = self._host.services(made["Published"], made["Endpoints"], self._pid)
            if endpoint["DNSNames"] and not had_names:
                services.append(self._host.resolver(self._container, self._pid))
        except BaseException:
            self._host.detach(endpoint)
            leases.release(record["Id"], self._container.id)
            made["Endpoints"] = before
            self._write()
            raise
        self._tell()
        _event("connect", endpoint, self._container.id)
        return services

    def leave(self, name: str) -> tuple[list[Service], list[str]]:
        """What is published comes by another network from here on."""
        made, host = self._made, self._host
        gone = [each for each in made["Endpoints"] if each["Network"] == name]
        kept = [each for each in made["Endpoints"] if each["Network"] != name]
        helped = made["Helper"] is not None and name == "bridge" and not gone
        for endpoint in gone:
            host.detach(endpoint)
            leases.release(endpoint["NetworkID"], self._container.id)
        if helped:
            self._give_up_helper()
        if helped or any(each["Wherry"]["DefaultRoute"] for each in gone):
            endpoints.choose_default_route(kept)
            host.route(self._pid, kept)
        host.withdraw(made["Targets"])
        made.update(Endpoints=kept, Targets=host.targets(made["Published"], kept))
        self._write()
        host.publish(made["Targets"], kept)
        self._tell()
        for endpoint in gone:
            _event("disconnect", endpoint, self._container.id)
        host.left()
        services = host.services(made["Published"], kept, self._pid)
        had_names = any(each["DNSNames"] for each in gone)
        has_names = any(each["DNSNames"] for each in kept)
        return services, ["names"] if had_names and not has_names else []

    def _give_up_helper(self) -> None:
        """Leave the default network; the ports that its helper published are ours now."""
        made = self._made
        self._runtime.disconnect_network(self._container.run_directory, made["Helper"])
        helped = shown_ports(each for each in made["Published"] if each.get("Helped"))
        kept = [each for each in made["Published"] if not each.get("Helped")]
        made.update(Helper=None, Published=[*kept, *self._host.hold(helped)])

    def rename(self, old: str) -> None:
        container = self._container
        container.reload_record()
        for each in self._made["Endpoints"]:
            each["Container"] = container.name
            if each["DNSNames"]:
                called = [container.name if name == old else name for name in each["DNSNames"]]
                each["DNSNames"] = list(dict.fromkeys(called))
            leases.rewrite(container.id, each)
        self._write()
        self._tell()

    def publish(self, bindings: dict[str, Any]) -> list[Service]:
        made, host = self._made, self._host
        published = _hold(self._container, bindings, host, made["Published"])
        try:
            targets = host.targets(published, made["Endpoints"])
            made["Published"] = [*made["Published"], *published]
            made["Targets"] = [*made["Targets"], *targets]
            self._write()
            host.publish(targets, made["Endpoints"])
        except BaseException:
            host.let_go(published)
            raise
        self._tell()
        return host.services(published, made["Endpoints"], self._pid)

    def unpublish(self, bindings: dict[str, Any]) -> list[str]:
        made, host, container = self._made, self._host, self._container
        gone = [each for each in made["Published"] if _is_named(each, bindings)]
        if not gone:
            raise NotFound(f"container {container.name} publishes no such port")
        kept = [each for each in made["Published"] if each not in gone]
        if any(each.get("Helped") for each in gone):
            raise Unsupported(
                f"cannot take back a port that container {container.name} was started with:"
                " pasta has it",
                hint="on a network of `wherry network create`, all ports can be taken back",
            )
        keys = [each["Key"] for each in host.services(gone, made["Endpoints"], self._pid)]
        host.withdraw(host.targets(gone, made["Endpoints"]))
        made.update(Published=kept, Targets=host.targets(kept, made["Endpoints"]))
        self._write()
        if not kept:
            machine.withdraw(container.id)
        machine.publish(container.id, shown_ports(kept))
        self._tell()
        return keys


def _is_named(published: Mapping[str, str], bindings: Mapping[str, Any]) -> bool:
    """Whether one of `bindings` means this port: what one does not say is any."""
    return any(
        binding.get("HostIp") in ("", None, published["HostIp"])
        and binding.get("HostPort") in ("", None, published["HostPort"])
        for binding in bindings.get(published["Port"], ())
    )


def check_settings(record: Record, settings: Settings) -> None:
    """Addresses are given out as docker gives them."""
    asked = settings.get("IPAMConfig") or {}
    if not (asked.get("IPv4Address") or asked.get("IPv6Address")):
        return
    if record["Name"] == "bridge":
        raise UsageError("user specified IP address is supported on user defined networks only")


def disconnect(run_directory: str, container_id: str, runtime: Runtime) -> None:
    """Take back what `connect` gave, as it is noted in a run directory."""
    path = os.path.join(run_directory, _RECORD)
    try:
        made = read_json(path)
    except (FileNotFoundError, CorruptState):
        return
    host = runtime.network()
    runtime.disconnect_network(run_directory, made["Helper"])
    host.withdraw(made["Targets"])
    for each in made["Endpoints"]:
        leases.release(each["NetworkID"], container_id)
        _event("disconnect", each, container_id)
    os.unlink(path)
    host.left()
