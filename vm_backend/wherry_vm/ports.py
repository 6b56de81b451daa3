"""Published ports on the host, which lead into the guest.

QEMU itself forwards them (hostfwd of its user network): no byte passes through Python. A
port that is taken is told at once, before the container runs. QEMU listens on IPv4 alone;
for an IPv6 address we listen, and relay to a port of 127.0.0.1 that QEMU forwards.

Of datagrams QEMU forwards one port at most to each of the guest's: it finds the socket that an
answer leaves by from the guest's port alone. What else leads there is relayed to that one.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
import threading
from ipaddress import ip_address

from wherry.errors import Conflict, NotFound, UsageError, WherryError, to_json
from wherry.values import value
from wherry_vm.boot import free_port
from wherry_vm.protocol import NONSENSE
from wherry_vm.relays import DatagramRelay, StreamRelay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    Publication = tuple[str, str, int]

_LOOPBACK, _LOOPBACK_6 = "127.0.0.1", "::1"
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_EVERYWHERE = {"0.0.0.0": _LOOPBACK, "::": _LOOPBACK_6}
_PROBE = 1
_MOST_FOLLOWED = 256
_MOST = 4096
"""How many ports a guest may have of its host: it is not trusted with all of them."""
_RELAYS: dict[str, type[StreamRelay | DatagramRelay]] = {
    "tcp": StreamRelay,
    "udp": DatagramRelay,
}


@value
class _Open:
    """A port that leads into the guest: QEMU's rule, and what listens before it if we do.

    The rule is (protocol, address, port of the host).
    """

    rule: Publication
    relay: StreamRelay | DatagramRelay | None = None


class _Busy(Conflict):
    """A port that another has."""

    def __init__(self, kind: str, host: str, port: int) -> None:
        super().__init__(
            f"Bind for {_shown(host)}:{port} failed: port is already allocated",
            hint="another program of this host listens there, or a container of another machine",
        )
        self.port = [kind, port]


class Forwards:
    """The ports that a machine's containers have on the host.

    `monitor` carries out a line of QEMU's human monitor, and gives what it says.
    """

    def __init__(self, monitor: Callable[[str], str]) -> None:
        self._monitor = monitor
        self._lock = threading.Lock()
        self._open: dict[str, dict[Publication, _Open]] = {}
        # The rule that leads to a UDP port of the guest's.
        self._datagrams: dict[int, Publication] = {}
        # What containers with the guest's network listen on, and what of that leads there.
        self._wanted: set[Publication] = set()
        self._followed: set[Publication] = set()

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """What a question of wherry.engine.published is answered."""
        try:
            with self._lock:
                if "withdraw" in message:
                    self._withdraw(str(message["withdraw"]))
                elif "publish" in message:
                    ports = [_publication(*each) for each in message["ports"]]
                    self._publish(str(message["publish"]), ports)
        except _Busy as error:
            return {"busy": error.port, "reason": to_json(error)}
        except WherryError as error:
            return {"error": to_json(error)}
        except NONSENSE as error:
            return {"error": to_json(UsageError(f"no ports to publish: {error!r}"))}
        return {}

    def follow(self, listeners: Sequence[Sequence[Any]]) -> list[str]:
        """Have on this host's loopback what containers with the guest's network listen on.

        They are (protocol, address of the guest, port) as the guest says, which is not trusted
        with more ports than a host can spare. The result is what could not be had, a line each.
        """
        said = [_publication(*each) for each in listeners[:_MOST_FOLLOWED]]
        wanted = {each for listener in said for each in on_loopback(*listener)}
        refused = []
        with self._lock:
            for each in self._followed - wanted:
                self._withdraw(_owner(*each))
            self._followed &= wanted
            for kind, host, port in sorted(wanted - self._wanted):
                try:
                    self._lead((kind, host, port))
                except WherryError as error:
                    if not (isinstance(error, NotFound) and (kind, _LOOPBACK, port) in wanted):
                        refused.append(f"--network host: {error.message}")
            self._wanted = wanted
        return refused

    def follow_again(self) -> None:
        """Have what `follow` could not, where it has become free."""
        with self._lock:
            for each in sorted(self._wanted - self._followed):
                with contextlib.suppress(OSError, WherryError):
                    # Who has the port is not to be connected to every few seconds.
                    _try(*each)
                    self._lead(each)

    def _lead(self, each: Publication) -> None:
        self._publish(_owner(*each), [each])
        self._followed.add(each)

    def close(self) -> None:
        """Listen no more; what QEMU forwards ends with it."""
        with self._lock:
            for ports in self._open.values():
                for each in ports.values():
                    if each.relay is not None:
                        each.relay.close()

    def _publish(self, owner: str, ports: Sequence[Publication]) -> None:
        """Have these ports, all of them, be the owner's; what it has stays as it was otherwise."""
        others = sum(len(each) for whose, each in self._open.items() if whose != owner)
        if others + len(ports) > _MOST:
            raise WherryError(f"a machine publishes {_MOST} ports at most")
        there = self._open.setdefault(owner, {})
        added: list[Publication] = []
        try:
            for each in ports:
                if each not in there and not _can_be_spared(each, ports):
                    there[each] = self._listen(*each)
                    added.append(each)
        except WherryError:
            self._end(owner, added)
            raise
        self._end(owner, set(there) - set(ports))

    def _listen(self, kind: str, host: str, port: int) -> _Open:
        if _is_in_use(kind, host, port):
            raise _Busy(kind, host, port)
        shared = self._datagrams.get(port) if kind == "udp" else None
        if ":" not in host and shared is None:
            return _Open(rule=self._forward(kind, host, port, port))
        _, address, inner = shared or (kind, _LOOPBACK, free_port(_KINDS[kind]))
        try:
            relay = _RELAYS[kind]((host, port), (_EVERYWHERE.get(address, address), inner))
        except OSError as error:
            raise _refusal(kind, host, port) from error
        try:
            rule = shared or self._forward(kind, address, inner, port)
        except WherryError:
            relay.close()
            raise
        return _Open(rule=rule, relay=relay)

    def _forward(self, kind: str, host: str, port: int, inside: int) -> Publication:
        rule = (kind, host, port)
        if self._monitor(f"hostfwd_add net {_said(rule)}-:{inside}").strip():
            raise _refusal(kind, host, port)
        if kind == "udp":
            self._datagrams[inside] = rule
        return rule

    def _withdraw(self, owner: str) -> None:
        self._end(owner, list(self._open.get(owner, ())))

    def _end(self, owner: str, ports: Iterable[Publication]) -> None:
        """Have these ports of an owner's lead nowhere; others may go by the same rule."""
        there = self._open.get(owner, {})
        ended = {each: there.pop(each) for each in ports}
        if not there:
            self._open.pop(owner, None)
        used = {each.rule for others in self._open.values() for each in others.values()}
        for (_, _, inside), port in ended.items():
            if port.rule not in used:
                used.add(port.rule)  # it is ended but once
                self._monitor(f"hostfwd_remove net {_said(port.rule)}")
                if self._datagrams.get(inside) == port.rule:
                    del self._datagrams[inside]
            if port.relay is not None:
                port.relay.close()


def _publication(kind: Any, host: Any, port: Any) -> Publication:
    """What is to be published, as the guest says: it goes to QEMU's monitor.

    Raises UsageError, and ValueError for what makes no sense.
    """
    address = ip_address(str(host))
    if kind not in _KINDS:
        raise UsageError(f"a machine publishes TCP and UDP, not {str(kind).upper()}")
    if not 0 < int(port) < 1 << 16:
        raise ValueError(f"port {port}")
    return kind, str(address), int(port)


def on_loopback(kind: str, address: str, port: int) -> list[Publication]:
    """Where this host listens for what listens at an address of the guest's."""
    if address == "::":
        return [(kind, _LOOPBACK, port), (kind, _LOOPBACK_6, port)]
    if address == _LOOPBACK_6:
        return [(kind, _LOOPBACK_6, port)]
    # Others of IPv6 are of networks that only the guest has.
    return [] if ":" in address else [(kind, _LOOPBACK, port)]


def _said(rule: Publication) -> str:
    """A rule as QEMU's monitor has it."""
    return ":".join(map(str, rule))


def _owner(kind: str, host: str, port: int) -> str:
    """What stands for the container of a port that is followed."""
    return f"{kind}:{host}:{port}"


def _refusal(kind: str, host: str, port: int) -> WherryError:
    """Why a port cannot be listened on, which QEMU does not tell: it is tried again."""
    try:
        _try(kind, host, port)
    except PermissionError:
        return WherryError(
            f"cannot publish port {port}: only root may bind it",
            hint="publish a port from 1024 on",
        )
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return NotFound(f"cannot publish on {_shown(host)}: this host has no such address")
        if error.errno != errno.EADDRINUSE:
            return WherryError(f"cannot publish on {_shown(host)}:{port}: {error.strerror}")
    return _Busy(kind, host, port)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _can_be_spared(each: Publication, ports: Sequence[Publication]) -> bool:
    """Whether a port of every IPv6 address is one of every IPv4 address too, on a host of these."""
    kind, host, port = each
    if host != "::" or (kind, "0.0.0.0", port) not in ports:
        return False
    try:
        _try(kind, "::", 0)
    except OSError:
        return True
    return False


def _is_in_use(kind: str, host: str, port: int) -> bool:
    """Whether a program of this host has the port, and would lose its clients to the guest.

    macOS and Windows let others listen at one address where somebody listens at all of them.
    """
    if kind == "tcp":
        return _is_answered(_EVERYWHERE.get(host, host), port)
    try:
        _try(kind, host, port)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def _is_answered(host: str, port: int) -> bool:
    """Whether somebody accepts connections at an address; not where it is none of this host's."""
    with _socket("tcp", host) as probe, contextlib.suppress(OSError):
        probe.settimeout(_PROBE)
        probe.bind((host, 0))
        # A socket would meet itself at the port that it was given.
        return probe.getsockname()[1] != port and probe.connect_ex((host, port)) == 0
    return False


def _try(kind: str, host: str, port: int) -> None:
    with _socket(kind, host) as probe:
        probe.bind((host, port))


def _socket(kind: str, host: str) -> socket.socket:
    """A socket that takes no port beside another, and none of IPv4 with one of IPv6."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, _KINDS[kind])
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if sys.platform == "win32":
        made.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    return made
