"""Tells a machine of what is around its host: names, proxies and authorities.

The guest is told when it is ready, and from then on before each command that finds them
changed: it begins when the guest has taken them over. Names follow at once, since it is the
host that answers for them.
"""

from __future__ import annotations

import threading

from wherry.errors import WherryError
from wherry_vm import machines
from wherry_vm.surroundings import proxies, resolvers
from wherry_vm.surroundings.authorities import Authorities
from wherry_vm.surroundings.names import Names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from wherry_vm.machines import Machine
    from wherry_vm.surroundings.resolvers import Resolvers

_PATIENCE = 5
"""Seconds for an emulated guest to take them over; a command is not kept longer."""

_NAME_SERVER = "10.0.2.3"


class Surroundings:
    """Those of a running machine; `say` tells its agent.

    `named` are files of certificates that commands trust; there may be more of them later.
    """

    def __init__(
        self, machine: Machine, say: Callable[[dict[str, Any]], None], named: Iterable[str]
    ) -> None:
        self._machine = machine
        self._say = say
        self._named = named
        self._names = Names(resolvers.read)
        self._authorities = Authorities()
        self._telling = threading.Lock()
        self._changed = threading.Condition()
        self._told: dict[str, Any] = {}
        self._number = self._adopted = 0

    def tell(self) -> None:
        """Tell the guest what has changed since it was told last."""
        with self._telling:
            now = self._read()
            if now != self._told:
                self._told = now
                self._number += 1
                self._say({"op": "surroundings", "number": self._number, **now})

    def catch_up(self) -> None:
        """The same, and wait until the guest goes by it."""
        self.tell()
        with self._changed:
            self._changed.wait_for(lambda: self._adopted >= self._number, _PATIENCE)

    def hear(self, message: dict[str, Any]) -> None:
        """What the agent says of it."""
        if message.get("event") == "adopted":
            with self._changed:
                self._adopted = int(message["number"])
                self._changed.notify_all()

    def close(self) -> None:
        self._names.close()

    def _read(self) -> dict[str, Any]:
        return {
            "names": self._names.port,
            "resolv.conf": resolv_conf(resolvers.read()),
            "environment": proxies.of_system(),
            "authorities": self._authorities.read(self._files()),
        }

    def _files(self) -> tuple[str, ...]:
        """Those of `machine set --ca`, which may have been set just now, and of commands."""
        try:
            machine = machines.load(self._machine.name)
        except WherryError:
            machine = self._machine
        return (*machine.settings.authorities, *self._named)


def resolv_conf(found: Resolvers) -> str:
    """The guest's resolv.conf(5): it asks QEMU's name server, whose questions we answer."""
    lines = [f"nameserver {_NAME_SERVER}"]
    if found.search:
        lines.append(f"search {' '.join(found.search)}")
    if found.options:
        lines.append(f"options {' '.join(found.options)}")
    return "\n".join(lines) + "\n"
