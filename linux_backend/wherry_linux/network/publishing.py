"""Ports of the host that a container publishes, bound before it starts.

A socket holds each port, so that nobody else takes it and a busy one is an error at once.
Packets for it go to the container by the firewall's rules and keep their sender; what
comes to the socket all the same (from ::1, or for a container without IPv6) is relayed by
whoever holds it (wherry_linux.network.relay).
"""

from __future__ import annotations

import errno
import os

from wherry import paths
from wherry.engine.published import inner_address
from wherry.errors import Conflict, NotFound, UsageError, WherryError
from wherry.files import read_json
from wherry.lean import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from typing import Any

    from wherry.container.spec import PortBinding

    Bindings = dict[str, list[PortBinding]]
    Published = dict[str, Any]

_SCTP = 132
# How often another random port is tried where one is free for IPv4 and not for IPv6.
_ATTEMPTS = 16


def hold(bindings: Bindings, busy: Collection[tuple[str, int]] = ()) -> list[Published]:
    """Bind the ports of the host, all or none. Raises Conflict for a busy one.

    Each is {"Port": "80/tcp", "HostIp", "HostPort", "Place", "Descriptor"}: it is bound at
    Place, and the descriptor is -1 for a protocol that this kernel has no sockets for, and
    for a further address of a machine's host.
    """
    held: list[Published] = []
    try:
        for port, given in bindings.items():
            protocol = port.partition("/")[2] or "tcp"
            for binding in given:
                for address, number, descriptor in _bind(binding, protocol, busy):
                    held.append(
                        {
                            "Port": f"{port.partition('/')[0]}/{protocol}",
                            "HostIp": address,
                            "HostPort": str(number),
                            "Place": inner_address(address),
                            "Descriptor": descriptor,
                        }
                    )
    except BaseException:
        let_go(held)
        raise
    return held


def let_go(held: Iterable[Published]) -> None:
    """Close what `hold` bound."""
    for each in held:
        if each["Descriptor"] >= 0:
            os.close(each["Descriptor"])


def targets(
    published: Iterable[Published], endpoints: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Where the firewall sends what comes for each port; none where only a relay can."""
    found: list[dict[str, Any]] = []
    for each in published:
        key = "GlobalIPv6Address" if ":" in each["Place"] else "IPAddress"
        if address := _way_in(endpoints, key):
            number, _, protocol = each["Port"].partition("/")
            place = {"HostIp": each["Place"], "HostPort": each["HostPort"]}
            to = {"Protocol": protocol, "Address": address, "Port": int(number)}
            target = {**place, **to}
            if target not in found:
                found.append(target)
    return found


def services(
    published: Iterable[Published], endpoints: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What has to be served for the ports (wherry_linux.network.services)."""
    found = []
    ways = [_way_in(endpoints, key) for key in ("IPAddress", "GlobalIPv6Address")]
    for each in published:
        number, _, protocol = each["Port"].partition("/")
        service = {"Kind": "port", "Descriptor": each["Descriptor"], "Protocol": protocol}
        # Who comes by IPv6 keeps his address on his way to one of IPv6.
        ordered = reversed(ways) if ":" in each["Place"] else ways
        addresses = [address for address in ordered if address]
        key = port_key(each)
        found.append({**service, "Addresses": addresses, "Port": int(number), "Key": key})
    return found


def port_key(published: Published) -> str:
    """What tells a published port from all others of a container."""
    return " ".join((published["Port"], published["HostIp"], published["HostPort"]))


def _way_in(endpoints: Sequence[dict[str, Any]], key: str) -> str:
    """The container's address on the network that is its way out, or on any."""
    ordered = sorted(endpoints, key=lambda each: not each["Wherry"]["DefaultRoute"])
    return next((each[key] for each in ordered if each[key]), "")


def _bind(
    binding: PortBinding, protocol: str, busy: Collection[tuple[str, int]]
) -> list[tuple[str, int, int]]:
    """(address, port, descriptor) of each socket that one binding takes."""
    address = binding.get("HostIp") or ""
    addresses = [address] if address else ["0.0.0.0", "::"]
    first, _, last = (binding.get("HostPort") or "0").partition("-")
    failed: WherryError = _busy(inner_address(addresses[0]), int(first), None)
    for number in _candidates(int(first), int(last or first)):
        bound: list[tuple[str, int, int]] = []
        if (protocol, number) in busy:
            continue
        try:
            for each in addresses:
                place, chosen = inner_address(each), bound[0][1] if bound else number
                found: tuple[int, int] | None = (chosen, -1)
                # In a machine one socket is for all the addresses of its host.
                if not bound or place != inner_address(bound[0][0]):
                    found = _bind_socket(place, chosen, protocol, optional=bool(bound))
                if found is not None:
                    bound.append((each, *found))
            return bound
        except WherryError as error:
            for _, _, descriptor in bound:
                if descriptor >= 0:
                    os.close(descriptor)
            failed = error
            if not isinstance(error, Conflict):
                break
    raise failed


def _candidates(first: int, last: int) -> Iterator[int]:
    if first == last == 0:
        yield from (0 for _ in range(_ATTEMPTS))
    yield from range(first or 1, last + 1)


def _bind_socket(
    address: str, port: int, protocol: str, *, optional: bool
) -> tuple[int, int] | None:
    """A port and the socket that holds it; None for IPv6 where the host has none."""
    family = sockets.AF_INET6 if ":" in address else sockets.AF_INET
    kind = sockets.SOCK_DGRAM if protocol == "udp" else sockets.SOCK_STREAM
    number = _SCTP if protocol == "sctp" else 0
    try:
        socket = sockets.socket(family, kind | sockets.SOCK_CLOEXEC, number)
    except OSError as error:
        if family == sockets.AF_INET6 and optional:
            return None
        if protocol == "sctp":
            return _without_socket(address, port)
        raise WherryError(f"cannot publish on [{address}]: {error.strerror}") from error
    try:
        if kind == sockets.SOCK_STREAM:
            socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        if family == sockets.AF_INET6:
            socket.setsockopt(sockets.IPPROTO_IPV6, sockets.IPV6_V6ONLY, 1)
        socket.setblocking(False)
        socket.bind((address, port))
        if kind == sockets.SOCK_STREAM:
            socket.listen(128)
        return int(socket.getsockname()[1]), socket.detach()
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL and optional:
            return None  # IPv6 is switched off
        raise _refused(address, port, protocol, error) from error
    finally:
        socket.close()


def _without_socket(address: str, port: int) -> tuple[int, int]:
    """An SCTP port of a kernel that forwards SCTP and has no sockets for it."""
    if not port:
        raise UsageError("this kernel has no SCTP sockets: name the port of the host to publish")
    if who := _publisher(port, "sctp"):
        raise _busy(address, port, who)
    return port, -1


def _refused(address: str, port: int, protocol: str, error: OSError) -> WherryError:
    shown = f"[{address}]" if ":" in address else address
    if error.errno in (errno.EACCES, errno.EPERM):
        return WherryError(
            f"cannot publish port {port}: only root may bind it",
            hint="publish a port from 1024 on; `wherry doctor` shows how to allow lower ones",
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return NotFound(f"cannot publish on {shown}: this machine has no such address")
    if error.errno != errno.EADDRINUSE:
        return WherryError(f"cannot publish on {shown}:{port}: {error.strerror}")
    return _busy(address, port, _owner(port, protocol))


def _busy(address: str, port: int, who: str | None) -> Conflict:
    shown = f"[{address}]" if ":" in address else address
    return Conflict(f"Bind for {shown}:{port} failed: port is already allocated", hint=who)


# ---- who holds a busy port ----


def _owner(port: int, protocol: str) -> str | None:
    """Who has it: a container of ours, or a process of the host."""
    if publisher := _publisher(port, protocol):
        return publisher
    inodes = set(_inodes(port, protocol))
    if inodes and _has_socket(str(os.getpid()), inodes):
        return "this container publishes it twice"
    for pid in _names("/proc"):
        if inodes and pid.isdigit() and _has_socket(pid, inodes):
            with open(f"/proc/{pid}/comm") as file:
                return f"process {pid} ({file.read().strip()}) holds it"
    return None


def _publisher(port: int, protocol: str) -> str | None:
    """The container of ours that has it; none that was killed, whose record is still there."""
    for container_id in _names(os.path.join(paths.run(), "containers")):
        try:
            record = read_json(os.path.join(paths.run_container(container_id), "network.json"))
        except (OSError, WherryError):
            continue
        for each in record.get("Published") or ():
            is_it = each["HostPort"] == str(port) and each["Port"].endswith(f"/{protocol}")
            if is_it and (name := _name_of_running(container_id)):
                return f"container {name} publishes it"
    return None


def _name_of_running(container_id: str) -> str:
    from wherry.container.store import ContainerStore
    from wherry_linux.processes import is_alive

    try:
        container = ContainerStore().load(container_id)
        state = container.state
    except WherryError:
        return ""
    alive = is_alive(state.get("MonitorPid") or 0, state.get("MonitorStart") or 0)
    return container.name if alive else ""


def _inodes(port: int, protocol: str) -> Iterator[str]:
    """The sockets that are bound to a port, as /proc names them (proc(5))."""
    for suffix in ("", "6"):
        try:
            with open(f"/proc/net/{protocol}{suffix}") as lines:
                for line in lines:
                    words = line.split()
                    if words[1].endswith(f":{port:04X}") and words[3] in ("0A", "07"):
                        yield f"socket:[{words[9]}]"
        except OSError:
            continue


def _has_socket(pid: str, inodes: set[str]) -> bool:
    directory = f"/proc/{pid}/fd"
    for name in _names(directory):
        try:
            if os.readlink(f"{directory}/{name}") in inodes:
                return True
        except OSError:
            continue
    return False


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
