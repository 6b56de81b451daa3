"""This host's networking, as the engine asks for it (wherry.runtime.HostNetwork)."""

from __future__ import annotations

from wherry_linux.network import bridges, firewall, holder, publishing, usermode
from wherry_linux.network.entering import connection_within, within
from wherry_linux.network.netlink import Connection, kernel_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from wherry.container.store import Container

    Endpoint = dict[str, Any]
    Published = dict[str, Any]
    Target = dict[str, Any]
    Service = dict[str, Any]


class LinuxNetwork:
    """Bridges, ports and names of this kernel's; for root."""

    def used(self) -> AbstractContextManager[object]:
        return _Nothing()

    def left(self) -> None:
        pass

    def subnets(self) -> list[str]:
        return bridges.host_subnets()

    def ensure(self, bridge: dict[str, Any]) -> bool:
        return bridges.ensure(bridge)

    def remove(self, bridge: dict[str, Any]) -> None:
        bridges.remove(bridge)

    def attach(self, pid: int, endpoints: Sequence[Endpoint]) -> None:
        with Connection() as route:
            bridges.attach(route, pid, endpoints)

    def renew(
        self,
        pid: int,  # noqa: ARG002
        endpoints: Sequence[Endpoint],
        targets: Sequence[Target],
    ) -> None:
        self.publish(targets, endpoints)

    def route(self, pid: int, endpoints: Sequence[Endpoint]) -> None:
        bridges.route(pid, endpoints)

    def detach(self, endpoint: Endpoint) -> None:
        bridges.remove_link(endpoint["Wherry"]["Link"])

    def hold(
        self, bindings: dict[str, Any], busy: Collection[tuple[str, int]] = ()
    ) -> list[Published]:
        return publishing.hold(bindings, busy)

    def let_go(self, published: Sequence[Published]) -> None:
        publishing.let_go(published)

    def targets(
        self, published: Sequence[Published], endpoints: Sequence[Endpoint]
    ) -> list[Target]:
        return publishing.targets(published, endpoints)

    def publish(self, targets: Sequence[Target], endpoints: Sequence[Endpoint]) -> None:
        if targets:
            bridges.reflect(endpoints)
        try:
            firewall.publish(targets)
        except OSError as error:
            raise kernel_error("publish ports", error) from error

    def withdraw(self, targets: Sequence[Target]) -> None:
        if targets:
            try:
                firewall.withdraw(targets)
            except OSError as error:
                raise kernel_error("take ports back", error) from error

    def services(
        self,
        published: Sequence[Published],
        endpoints: Sequence[Endpoint],
        pid: int,  # noqa: ARG002
    ) -> list[Service]:
        return publishing.services(published, endpoints)

    def resolver(self, container: Container, pid: int) -> Service:
        from wherry_linux.network.resolver import open_resolver

        return open_resolver(container.id, pid)

    def addresses(self, endpoints: Sequence[Endpoint]) -> list[str]:
        out = [each for each in endpoints if each["Wherry"]["DefaultRoute"]]
        return [each[key] for each in out for key in ("Gateway", "IPv6Gateway") if each[key]]


class UserNetwork(LinuxNetwork):
    """The same in a network namespace of the user's own (wherry_linux.network.holder).

    Ports are the host's all the same: who holds them carries what comes into the namespace.
    """

    def used(self) -> AbstractContextManager[object]:
        return holder.used()

    def left(self) -> None:
        holder.leave()

    def subnets(self) -> list[str]:
        return [*super().subnets(), holder.SUBNET]

    def ensure(self, bridge: dict[str, Any]) -> bool:
        pid, is_new = holder.ensure(outside=not bridge["Internal"])
        return bool(within(pid, lambda: super(UserNetwork, self).ensure(bridge))) or is_new

    def remove(self, bridge: dict[str, Any]) -> None:
        self._there(lambda: super(UserNetwork, self).remove(bridge))

    def attach(self, pid: int, endpoints: Sequence[Endpoint]) -> None:
        with connection_within(holder.find()) as route:
            bridges.attach(route, pid, endpoints)

    def renew(self, pid: int, endpoints: Sequence[Endpoint], targets: Sequence[Target]) -> None:
        self.attach(pid, endpoints)
        self.publish(targets, endpoints)

    def detach(self, endpoint: Endpoint) -> None:
        self._there(lambda: super(UserNetwork, self).detach(endpoint))

    def publish(self, targets: Sequence[Target], endpoints: Sequence[Endpoint]) -> None:
        if targets:
            self._there(lambda: super(UserNetwork, self).publish(targets, endpoints))

    def withdraw(self, targets: Sequence[Target]) -> None:
        if targets:
            self._there(lambda: super(UserNetwork, self).withdraw(targets))

    def hold(
        self, bindings: dict[str, Any], busy: Collection[tuple[str, int]] = ()
    ) -> list[Published]:
        return usermode.hold(bindings, busy)

    def services(
        self, published: Sequence[Published], endpoints: Sequence[Endpoint], pid: int
    ) -> list[Service]:
        if not endpoints:
            return usermode.services(published, pid)
        held = [each for each in published if not each.get("Helped")]
        # Without a way out the container could answer to nobody outside of its network.
        has_way = any(each["Wherry"]["DefaultRoute"] for each in endpoints)
        place = {"Within": 0, "Senders": bool(held) and has_way and holder.keeps_senders()}
        found = super().services(held, endpoints, pid)
        connections = [each for each in found if each["Protocol"] == "tcp"]
        datagrams = [{**each, **place} for each in found if each["Protocol"] != "tcp"]
        return [*usermode.reached_within(connections, pid), *datagrams]

    def addresses(self, endpoints: Sequence[Endpoint]) -> list[str]:
        # What it leads out by is in the way of the host's loopback, not of its addresses.
        own = holder.host_address()
        return [own] if own and super().addresses(endpoints) else []

    def _there(self, function: Callable[[], None]) -> None:
        """Do it where the networks are; where there is no such place, nothing has to be done."""
        if pid := holder.find():
            within(pid, function)


class _Nothing:
    """There is no need to hold what is always there."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
