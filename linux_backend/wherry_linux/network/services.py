"""What a monitor does for its container's network as long as that runs.

A service is a dict, so that it goes over to another interpreter as it is:

    {"Kind": "port", "Descriptor", "Protocol", "Addresses", "Port", "Key"}, and "Within" where
    the container can be reached from another network namespace alone: the process that it
    is of, or 0 for that of an unprivileged user's networks, and "Senders" if clients keep
    their addresses there
    {"Kind": "names", "Datagrams", "Stream", "Id"}
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from wherry_linux.monitor import Monitor

    Service = dict[str, Any]


class Services:
    """The services of one container."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._running: list[tuple[Service, Any]] = []

    def start(self, services: Iterable[Service]) -> None:
        """Serve what is not served yet; what is goes on to where it is to go now."""
        for service in services:
            if not self._lead(service):
                self._running.append((service, self._open(service)))

    def _lead(self, service: Service) -> bool:
        for at, (known, server) in enumerate(self._running):
            if known["Key"] == service["Key"]:
                self._running[at] = (service, server)
                if server is not None and service["Kind"] == "port":
                    server.lead(service)
                return True
        return False

    def _open(self, service: Service) -> Any:
        if service["Kind"] == "port":
            from wherry_linux.network.relay import start_relay

            return start_relay(self._monitor, service)
        from wherry_linux.network.resolver import Resolver

        return Resolver(self._monitor, service)

    def stop(self, key: str | None = None) -> None:
        """End those with a key, or all."""
        for entry in list(self._running):
            service, server = entry
            if key is not None and service.get("Key") != key:
                continue
            self._running.remove(entry)
            if server is not None:
                server.close()
            elif service.get("Descriptor", -1) >= 0:
                os.close(service["Descriptor"])

    def is_idle(self) -> bool:
        """Whether nothing would be lost if others went on with the sockets."""
        return all(server is None or server.is_idle() for _, server in self._running)

    def saved(self) -> list[Service]:
        return [service for service, _ in self._running]


def descriptors(services: Iterable[Service]) -> set[int]:
    """The sockets that the services are made of."""
    keys = ("Descriptor", "Datagrams", "Stream")
    return {service[key] for service in services for key in keys if service.get(key, -1) >= 0}
