"""Published ports on the host, which lead into the guest.

QEMU itself forwards them (hostfwd of its user network): no byte passes through Python. A
port that is taken is told at once, before the container runs. QEMU listens on IPv4 alone;
for an IPv6 address we listen, and relay to a port of 127.0.0.1 that QEMU forwards.
"""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address

from wherry.errors import Conflict, UsageError, WherryError, to_json
from wherry_vm.boot import free_port
from wherry_vm.protocol import NONSENSE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Publication = tuple[str, str, int]

_CHUNK = 1 << 16


class Forwards:
    """The ports that a machine's containers have on the host.

    `monitor` carries out a line of QEMU's human monitor, and gives what it says.
    """

    def __init__(self, monitor: Callable[[str], str]) -> None:
        self._monitor = monitor
        self._lock = threading.Lock()
        self._rules: dict[str, list[str]] = {}
        self._relays: dict[str, list[Relay]] = {}

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """What a question of wherry.engine.published is answered."""
        try:
            with self._lock:
                if "withdraw" in message:
                    self._withdraw(str(message["withdraw"]))
                elif "publish" in message:
                    ports = [_publication(*each) for each in message["ports"]]
                    self._publish(str(message["publish"]), ports)
        except WherryError as error:
            return {"error": to_json(error)}
        except NONSENSE as error:
            return {"error": to_json(UsageError(f"no ports to publish: {error!r}"))}
        return {}

    def close(self) -> None:
        """Listen no more; what QEMU forwards ends with it."""
        with self._lock:
            for relays in self._relays.values():
                for relay in relays:
                    relay.close()

    def _publish(self, container: str, ports: Sequence[Publication]) -> None:
        self._withdraw(container)
        try:
            for kind, host, port in ports:
                if ":" in host:
                    self._relay(container, kind, host, port)
                else:
                    self._forward(container, kind, host, port, port)
        except WherryError:
            self._withdraw(container)
            raise

    def _forward(self, container: str, kind: str, host: str, port: int, inside: int) -> None:
        rule = f"{kind}:{host}:{port}"
        said = self._monitor(f"hostfwd_add net {rule}-:{inside}").strip()
        if said:
            raise _taken(host, port)
        self._rules.setdefault(container, []).append(rule)

    def _relay(self, container: str, kind: str, host: str, port: int) -> None:
        if kind != "tcp":
            return  # UDP over IPv6 is not relayed; IPv4 has it
        relay = Relay(host, port, free_port())
        self._relays.setdefault(container, []).append(relay)
        self._forward(container, kind, "127.0.0.1", relay.inner, port)

    def _withdraw(self, container: str) -> None:
        for rule in self._rules.pop(container, []):
            self._monitor(f"hostfwd_remove net {rule}")
        for relay in self._relays.pop(container, []):
            relay.close()


class Relay:
    """A TCP port of an IPv6 address; what comes goes to `inner`, a port of 127.0.0.1."""

    def __init__(self, host: str, port: int, inner: int) -> None:
        """Raises Conflict where the port is taken."""
        self.inner = inner
        try:
            self._listener = socket.create_server(
                (host, port), family=socket.AF_INET6, backlog=128, dualstack_ipv6=False
            )
        except OSError as error:
            raise _taken(f"[{host}]", port) from error
        threading.Thread(target=self._accept, daemon=True, name=f"port {port}").start()

    def close(self) -> None:
        """Listen no more; connections that are open go on."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                outer, _ = self._listener.accept()
            except OSError:
                return
            try:
                inner = socket.create_connection(("127.0.0.1", self.inner))
            except OSError:
                outer.close()
                continue
            for source, target in ((outer, inner), (inner, outer)):
                threading.Thread(target=_carry, args=(source, target), daemon=True).start()


def _carry(source: socket.socket, target: socket.socket) -> None:
    """Bytes in one direction; its end is passed on."""
    try:
        while data := source.recv(_CHUNK):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        target.close()


def _publication(kind: Any, host: Any, port: Any) -> Publication:
    """What is to be published, as the guest says. Raises ValueError: it goes to QEMU's monitor."""
    address = ip_address(str(host))
    if kind not in ("tcp", "udp") or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{port}/{kind}")
    return kind, str(address), int(port)


def _taken(host: str, port: int) -> Conflict:
    return Conflict(
        f"Bind for {host}:{port} failed: port is already allocated",
        hint="another program of this host listens there, or a container of another machine",
    )
