"""This host's networking, as the engine asks for it (wherry.runtime.HostNetwork)."""

from __future__ import annotations

from wherry_linux.network import bridges, firewall, publishing
from wherry_linux.network.netlink import kernel_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.container.store import Container

    Endpoint = dict[str, Any]
    Published = dict[str, Any]
    Target = dict[str, Any]
    Service = dict[str, Any]


class LinuxNetwork:
    """Bridges, ports and names of this kernel's; for root."""

    def subnets(self) -> list[str]:
        return bridges.host_subnets()

    def ensure(self, bridge: dict[str, Any]) -> bool:
        return bridges.ensure(bridge)

    def remove(self, bridge: dict[str, Any]) -> None:
        bridges.remove(bridge)

    def attach(self, pid: int, endpoints: Sequence[Endpoint]) -> None:
        bridges.attach(pid, endpoints)

    def route(self, pid: int, endpoints: Sequence[Endpoint]) -> None:
        bridges.route(pid, endpoints)

    def detach(self, endpoint: Endpoint) -> None:
        bridges.remove_link(endpoint["Wherry"]["Link"])

    def hold(self, bindings: dict[str, Any]) -> list[Published]:
        return publishing.hold(bindings)

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
        self, published: Sequence[Published], endpoints: Sequence[Endpoint]
    ) -> list[Service]:
        return publishing.services(published, endpoints)

    def resolver(self, container: Container, pid: int) -> Service:
        from wherry_linux.network.resolver import open_resolver

        return open_resolver(container.id, pid)
