"""What listens in containers with `--network host`: the host forwards to it.

The kernel tells nobody that a socket begins to listen. So it is looked at each second, but
only while such a container runs: four small files, and the processes of the containers when
these have changed.

What comes from the host is for the guest's address. Where a container listens on 127.0.0.1
alone it is led there by a rule; where that is ::1, by a relay.
"""

from __future__ import annotations

import contextlib
import os
import socket

from wherry.container.store import Container, ContainerStore
from wherry.errors import WherryError
from wherry_vm.guest.rules import lead_to_loopback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wherry_vm.relays import DatagramRelay, StreamRelay

    Listener = tuple[str, str, int]
    Port = tuple[str, int]
    Place = tuple[str, int]

_TABLES = {"tcp": ("0A", "tcp"), "tcp6": ("0A", "tcp"), "udp": ("07", "udp"), "udp6": ("07", "udp")}
_LOOPBACK, _LOOPBACK_6 = "127.0.0.1", "::1"
_EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"


class Listeners:
    """What is known to listen; `is_wanted` while it is worth to look."""

    def __init__(self) -> None:
        self._containers: dict[str, Container] = {}
        self._sockets: dict[str, Listener] = {}
        self._told: list[Listener] = []
        self._led: dict[Port, Place] = {}
        self._relays: dict[Port, StreamRelay | DatagramRelay] = {}

    @property
    def is_wanted(self) -> bool:
        return bool(self._containers or self._told)

    def follow(self, running: Iterable[str]) -> None:
        """These containers run now."""
        before = self._containers
        known = {each: before.get(each) or _on_host(each) for each in running}
        self._containers = {each: found for each, found in known.items() if found is not None}
        if self._containers.keys() != before.keys():
            self._sockets = {}  # whose they are has to be looked at again

    def look(self) -> list[Listener] | None:
        """What listens, where that has changed since it was last told."""
        sockets = dict(_sockets()) if self._containers else {}
        if sockets == self._sockets and self._containers:
            return None
        self._sockets = sockets
        owned = set(_owned(self._containers.values())) if sockets else set()
        found = sorted({each for inode, each in sockets.items() if inode in owned})
        if found == self._told:
            return None
        self._told = found
        self._lead(found)
        return found

    def _lead(self, found: Iterable[Listener]) -> None:
        """Have those reached that listen on loopback alone."""
        seen = {(kind, port) for kind, address, port in found if not _is_loopback(address)}
        led: dict[Port, Place] = {
            (kind, port): (address, port)
            for kind, address, port in found
            if address.startswith("127.") and (kind, port) not in seen
        }
        of_ipv6 = {(kind, port) for kind, address, port in found if address == _LOOPBACK_6}
        self._relay(of_ipv6 - seen - led.keys())
        led.update((port, (_LOOPBACK, relay.port)) for port, relay in self._relays.items())
        if led != self._led:
            self._led = led
            lead_to_loopback(led)

    def _relay(self, ports: set[Port]) -> None:
        """Relay to exactly these of ::1."""
        for port in self._relays.keys() - ports:
            self._relays.pop(port).close()
        for port in ports - self._relays.keys():
            from wherry_vm.relays import DatagramRelay, StreamRelay

            relay = StreamRelay if port[0] == "tcp" else DatagramRelay
            with contextlib.suppress(OSError):  # no descriptor is free: the host finds nobody there
                self._relays[port] = relay((_LOOPBACK, 0), (_LOOPBACK_6, port[1]))


def _is_loopback(address: str) -> bool:
    return address == _LOOPBACK_6 or address.startswith("127.")


def _on_host(container_id: str) -> Container | None:
    """A container, where its network is the guest's own."""
    store = ContainerStore()
    with contextlib.suppress(WherryError, KeyError):
        container = store.load(container_id)
        mode = str(container.body["HostConfig"].get("NetworkMode") or "")
        if mode.startswith("container:"):
            mode = store.find(mode.removeprefix("container:")).body["HostConfig"]["NetworkMode"]
        return container if mode == "host" else None
    return None


def _sockets() -> Iterator[tuple[str, Listener]]:
    """Every socket that listens, by inode. UDP's of passing ports belong to who asks."""
    with open(_EPHEMERAL, encoding="ascii") as file:
        first, last = map(int, file.read().split())
    for name, (state, kind) in _TABLES.items():
        with open(f"/proc/net/{name}", encoding="ascii") as lines:
            for line in list(lines)[1:]:
                fields = line.split()
                where, _, port = fields[1].partition(":")
                number = int(port, 16)
                if fields[3] == state and (kind == "tcp" or not first <= number <= last):
                    yield fields[9], (kind, address(where), number)


def address(digits: str) -> str:
    """An address of /proc/net/tcp: words of the machine's own byte order, in hexadecimal."""
    words = bytes.fromhex(digits)
    packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    return socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed)


def _owned(containers: Iterable[Container]) -> Iterator[str]:
    """The inodes of the sockets that the processes of containers have."""
    for container in containers:
        for pid in _processes(container):
            with contextlib.suppress(OSError):
                for entry in os.scandir(f"/proc/{pid}/fd"):
                    with contextlib.suppress(OSError):
                        target = os.readlink(entry.path)
                        if target.startswith("socket:["):
                            yield target[8:-1]


def _processes(container: Container) -> Iterator[str]:
    """Those of a container's control group and of the groups below it."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{container.reload()['Pid']}/cgroup", encoding="utf-8") as file:
            group = file.read().rpartition("0::")[2].strip()
        for directory, _, _ in os.walk(f"/sys/fs/cgroup{group}"):
            with contextlib.suppress(OSError), open(f"{directory}/cgroup.procs") as file:
                yield from file.read().split()
