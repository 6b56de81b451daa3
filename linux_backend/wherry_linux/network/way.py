"""How whoever relays to a container reaches it.

Root's containers are reached from the host. Others' are reached from a network namespace
that their user may enter and not leave again: what is wanted of there are sockets, and a
forked child that goes there sends a supply of them.
"""

from __future__ import annotations

import select

from wherry.errors import WherryError
from wherry.lean import sockets
from wherry_linux.network import senders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# How many sockets are fetched at once.
_SUPPLY = 32
# How long a container may take to answer before another way to it is not tried, in milliseconds.
_ANSWER = 100
_SO_ERROR = 4


class Way:
    """The way to one port of a container, by the first of its addresses that takes it."""

    def __init__(self, service: dict[str, Any]) -> None:
        self._ends = [_End(service, address) for address in service["Addresses"]]

    def open(self, kind: int, sender: tuple[Any, ...]) -> Any:
        """A socket on its way to the container, for who came from `sender`; None if there is none.

        A second try is for a supply from a namespace that is no more.
        """
        for end in self._ends:
            socket = end.open(kind, sender)
            if socket is None and end.has_supply():
                end.close()
                socket = end.open(kind, sender)
            if socket is None:
                continue
            if kind == sockets.SOCK_STREAM and end is not self._ends[-1] and _is_refused(socket):
                socket.close()
                continue
            return socket
        return None

    def close(self) -> None:
        for end in self._ends:
            end.close()


class _End:
    """One address of the container's."""

    def __init__(self, service: dict[str, Any], address: str) -> None:
        self._target = (address, service["Port"])
        self._family = sockets.AF_INET6 if ":" in address else sockets.AF_INET
        self._within: int | None = service.get("Within")
        self._keeps_senders = bool(service.get("Senders"))
        self._supply: list[Any] = []

    def has_supply(self) -> bool:
        return bool(self._supply)

    def open(self, kind: int, sender: tuple[Any, ...]) -> Any:
        try:
            socket = self._make(kind)
        except (OSError, WherryError):
            return None  # the container is about to end
        socket.setblocking(False)
        if self._keeps_senders:
            senders.take(socket, sender)
        try:
            socket.connect(self._target)
        except BlockingIOError:
            pass
        except OSError:
            socket.close()
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

            made = sockets_within(self._within or _keeper(), lambda: self._make_supply(kind))
            self._supply = [sockets.socket(fileno=each) for each in made]
        return self._supply.pop()

    def _make_supply(self, kind: int) -> list[Any]:
        supply = [_new(self._family, kind) for _ in range(_SUPPLY)]
        if self._keeps_senders:
            for socket in supply:
                # That of the networks marks packets by a rule of its own.
                senders.let_take(socket, marked=bool(self._within))
        return supply


def _is_refused(socket: Any) -> bool:
    """Whether nobody listens there. So near, the answer comes at once."""
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLOUT)
    poll.poll(_ANSWER)
    return bool(socket.getsockopt(sockets.SOL_SOCKET, _SO_ERROR))


def _new(family: int, kind: int) -> Any:
    return sockets.socket(family, kind | sockets.SOCK_CLOEXEC)


def _keeper() -> int:
    from wherry_linux.network.holder import find

    return find()
