"""How whoever relays to a container reaches it.

Root's containers are reached from the host. Others' are reached from a network namespace
that their user may enter and not leave again: what is wanted of there are sockets, and a
forked child that goes there sends a supply of them.
"""

from __future__ import annotations

from wherry.errors import WherryError
from wherry.lean import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# How many sockets are fetched at once.
_SUPPLY = 32


class Way:
    """The way to one port of a container."""

    def __init__(self, service: dict[str, Any]) -> None:
        self._target = (service["Address"], service["Port"])
        self._family = sockets.AF_INET6 if ":" in service["Address"] else sockets.AF_INET
        self._within: int | None = service.get("Within")
        self._supply: list[Any] = []

    def open(self, kind: int) -> Any:
        """A socket on its way to the container; None if there is no way."""
        try:
            socket = self._make(kind)
        except (OSError, WherryError):
            return None  # the container is about to end
        socket.setblocking(False)
        try:
            socket.connect(self._target)
        except BlockingIOError:
            pass
        except OSError:
            socket.close()
            # They may be of a namespace that is no more.
            self.close()
            return None
        return socket

    def close(self) -> None:
        while self._supply:
            self._supply.pop().close()

    def _make(self, kind: int) -> Any:
        if self._within is None:
            return _new(self._family, kind)
        if not self._supply:
            from wherry_linux.network.entering import sockets_within

            pid = self._within or _keeper()
            made = sockets_within(pid, lambda: [_new(self._family, kind) for _ in range(_SUPPLY)])
            self._supply = [sockets.socket(fileno=each) for each in made]
        return self._supply.pop()


def _new(family: int, kind: int) -> Any:
    return sockets.socket(family, kind | sockets.SOCK_CLOEXEC)


def _keeper() -> int:
    from wherry_linux.network.holder import find

    return find()
