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
    from collections.abc import Iterable, Mapping
    from typing import Any

    from wherry.container.store import Container
    from wherry.network.store import Record
    from wherry.runtime import HostNetwork, Runtime

    Endpoint = dict[str, Any]
    Settings = Mapping[str, Any]
    Service = dict[str, Any]

_RECORD = "network.json"
RESOLVER = "127.0.0.11"


def connect(container: Container, pid: int, runtime: Runtime) -> list[Service]:
    """Give a created container its networks; what its monitor has to serve from now on."""
    asked = networks_of(container)
    if runtime.is_rootless():
        check_rootless(asked)
        return _connect_in_user_mode(container, pid, runtime)
    host = runtime.network()
    store = NetworkStore(host.subnets)
    networks = [(store.find(name), settings) for name, settings in asked.items()]
    try:
        for record, settings in networks:
            check_settings(record, settings)
            if host.ensure(endpoints.bridge_of(record)):
                _restore(store, host)
    except Unsupported:
        if list(asked) != ["bridge"]:
            raise
        # A kernel without bridges, or somebody else's.
        return _connect_in_user_mode(container, pid, runtime)
    return _connect(container, pid, runtime, networks)


def _restore(store: NetworkStore, host: HostNetwork) -> None:
    """Have the firewall know again what runs: somebody has flushed all rules of this host."""
    for record in store.recorded():
        on_it = leases.endpoints(record["Id"])
        if on_it:
            host.ensure(endpoints.bridge_of(record))
        for container_id in on_it:
            path = os.path.join(paths.run_container(container_id), _RECORD)
            try:
                made = read_json(path)
                host.publish(made["Targets"], made["Endpoints"])
            except (FileNotFoundError, CorruptState):
                continue


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
    if runtime.is_rootless():
        check_rootless(asked)


def check_rootless(asked: Iterable[str]) -> None:
    """Raise Unsupported for networks that only root can make."""
    for name in asked:
        if name != "bridge":
            raise Unsupported(
                f"cannot connect the container to network {name}: only root can make networks",
                hint="others have the default network, --network host and --network none",
            )


def _connect_in_user_mode(container: Container, pid: int, runtime: Runtime) -> list[Service]:
    ports = runtime.connect_network(container, pid)
    machine.publish(container.id, ports)
    write_files(container, Attachment(addresses=runtime.addresses(pid)))
    container.write_state(Network={"Ports": ports})
    return []


def _connect(
    container: Container, pid: int, runtime: Runtime, networks: list[tuple[Record, Settings]]
) -> list[Service]:
    host = runtime.network()
    published = host.hold(wanted_ports(container.body))
    try:
        joined = [
            _lease(container, record, settings, f"eth{number}", runtime)
            for number, (record, settings) in enumerate(networks)
        ]
        endpoints.choose_default_route(joined)
        targets = host.targets(published, joined)
        _write_record(container, joined, published, targets)
        machine.publish(container.id, shown_ports(published))
        host.attach(pid, joined)
        host.publish(targets, joined)
        services = host.services(published, joined)
        if any(each["DNSNames"] for each in joined):
            services.append(host.resolver(container, pid))
    except BaseException:
        host.let_go(published)
        raise
    _tell(container, joined, published)
    for each in joined:
        _event("connect", each, container.id)
    return services


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


def _write_record(
    container: Container, joined: list[Endpoint], published: list[Any], targets: list[Any]
) -> None:
    """What to take back, whoever does it."""
    write_json(
        os.path.join(container.run_directory, _RECORD),
        {"Endpoints": joined, "Published": published, "Targets": targets},
    )


def _tell(container: Container, joined: list[Endpoint], published: list[Any]) -> None:
    """Write the container's files, and its state."""
    keys = ("IPAddress", "GlobalIPv6Address")
    addresses = [each[key] for each in joined for key in keys if each[key]]
    out = [each for each in joined if each["Wherry"]["DefaultRoute"]]
    gateways = [each[key] for each in out for key in ("Gateway", "IPv6Gateway") if each[key]]
    has_names = any(each["DNSNames"] for each in joined)
    write_files(
        container,
        Attachment(
            addresses=addresses,
            gateways=gateways,
            nameservers=(RESOLVER,) if has_names else (),
            has_ipv6=any(each["GlobalIPv6Address"] for each in joined),
            links=_links(container, joined),
        ),
    )
    shown = {each["Network"]: endpoints.shown(each) for each in joined}
    container.write_state(Network={"Ports": shown_ports(published), "Networks": shown})


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
        made = {"Endpoints": [], "Published": [], "Targets": []}
    if "Endpoints" not in made:
        raise Unsupported(
            f"cannot change the network of container {container.name}: it is one in user mode",
            hint="only root's containers are on networks that change while they run",
        )
    host = runtime.network()
    if message["do"] == "connect":
        return _join(container, pid, runtime, made, message), []
    if message["do"] == "disconnect":
        return [], _leave(container, pid, host, made, message["name"])
    if message["do"] == "rename":
        _rename(container, made, message["old"])
        return [], []
    if message["do"] == "publish":
        return _publish(container, host, made, message["bindings"]), []
    return [], _unpublish(container, host, made, message["bindings"])


def _join(
    container: Container, pid: int, runtime: Runtime, made: Any, message: Mapping[str, Any]
) -> list[Service]:
    host = runtime.network()
    record = NetworkStore(host.subnets).find(message["name"])
    host.ensure(endpoints.bridge_of(record))
    before = list(made["Endpoints"])
    taken = {each["Wherry"]["Interface"] for each in before}
    interface = next(name for name in map("eth{}".format, range(1000)) if name not in taken)
    endpoint = _lease(container, record, message["settings"], interface, runtime)
    has_route = any(each["Wherry"]["DefaultRoute"] for each in before)
    endpoint["Wherry"]["DefaultRoute"] = not has_route and bool(endpoint["Gateway"])
    joined = [*before, endpoint]
    _write_record(container, joined, made["Published"], made["Targets"])
    try:
        host.attach(pid, [endpoint])
        had_names = any(each["DNSNames"] for each in before)
        services = [host.resolver(container, pid)] if endpoint["DNSNames"] and not had_names else []
    except BaseException:
        host.detach(endpoint)
        leases.release(record["Id"], container.id)
        _write_record(container, before, made["Published"], made["Targets"])
        raise
    _tell(container, joined, made["Published"])
    _event("connect", endpoint, container.id)
    return services


def _leave(container: Container, pid: int, host: HostNetwork, made: Any, name: str) -> list[str]:
    gone = [each for each in made["Endpoints"] if each["Network"] == name]
    kept = [each for each in made["Endpoints"] if each["Network"] != name]
    for endpoint in gone:
        host.detach(endpoint)
        leases.release(endpoint["NetworkID"], container.id)
    if any(each["Wherry"]["DefaultRoute"] for each in gone):
        endpoints.choose_default_route(kept)
        host.route(pid, kept)
    host.withdraw(made["Targets"])
    targets = host.targets(made["Published"], kept)
    _write_record(container, kept, made["Published"], targets)
    host.publish(targets, kept)
    _tell(container, kept, made["Published"])
    for endpoint in gone:
        _event("disconnect", endpoint, container.id)
    had_names = any(each["DNSNames"] for each in gone)
    return ["names"] if had_names and not any(each["DNSNames"] for each in kept) else []


def _rename(container: Container, made: Any, old: str) -> None:
    container.reload_record()
    for each in made["Endpoints"]:
        each["Container"] = container.name
        if each["DNSNames"]:
            called = [container.name if name == old else name for name in each["DNSNames"]]
            each["DNSNames"] = list(dict.fromkeys(called))
        leases.rewrite(container.id, each)
    _write_record(container, made["Endpoints"], made["Published"], made["Targets"])
    _tell(container, made["Endpoints"], made["Published"])


def _publish(
    container: Container, host: HostNetwork, made: Any, bindings: dict[str, Any]
) -> list[Service]:
    published = host.hold(bindings)
    try:
        targets = host.targets(published, made["Endpoints"])
        every, all_targets = [*made["Published"], *published], [*made["Targets"], *targets]
        _write_record(container, made["Endpoints"], every, all_targets)
        machine.publish(container.id, shown_ports(every))
        host.publish(targets, made["Endpoints"])
    except BaseException:
        host.let_go(published)
        raise
    _tell(container, made["Endpoints"], every)
    return host.services(published, made["Endpoints"])


def _unpublish(
    container: Container, host: HostNetwork, made: Any, bindings: dict[str, Any]
) -> list[str]:
    gone = [each for each in made["Published"] if _is_named(each, bindings)]
    if not gone:
        raise NotFound(f"container {container.name} publishes no such port")
    kept = [each for each in made["Published"] if each not in gone]
    keys = [service["Key"] for service in host.services(gone, made["Endpoints"])]
    host.withdraw(host.targets(gone, made["Endpoints"]))
    _write_record(container, made["Endpoints"], kept, host.targets(kept, made["Endpoints"]))
    machine.withdraw(container.id)
    machine.publish(container.id, shown_ports(kept))
    _tell(container, made["Endpoints"], kept)
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
        record = read_json(path)
    except (FileNotFoundError, CorruptState):
        return
    if "Endpoints" not in record:
        runtime.disconnect_network(run_directory)
        return
    runtime.network().withdraw(record["Targets"])
    for each in record["Endpoints"]:
        leases.release(each["NetworkID"], container_id)
        _event("disconnect", each, container_id)
    os.unlink(path)
