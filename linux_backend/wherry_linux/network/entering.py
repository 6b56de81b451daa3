"""Work in the network namespaces of other processes.

Root goes there and comes back. Others may not come back: a forked child goes there for
them, by way of the user namespace that owns the network's, and sends back what it finds.
"""

from __future__ import annotations

import os

from wherry.errors import WherryError
from wherry.forked import start
from wherry.lean import sockets
from wherry_linux import constants as c
from wherry_linux.channel import Channel
from wherry_linux.namespaces import open_namespace
from wherry_linux.network.netlink import NETLINK_ROUTE, Connection, open_socket
from wherry_linux.syscalls import setns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def within(pid: int, function: Callable[[], Any]) -> Any:
    """`function()` in the network namespace of a process; the result is one that JSON has."""
    return _elsewhere(pid, lambda: (function(), ()))[0]


def sockets_within(pid: int, make: Callable[[], Sequence[Any]]) -> list[int]:
    """The descriptors of sockets that `make()` makes in the network namespace of a process."""
    return _elsewhere(pid, lambda: (None, make()))[1]


def connection_within(pid: int, protocol: int = NETLINK_ROUTE) -> Connection:
    """Netlink to the network namespace of a process; the caller closes it."""
    [descriptor] = sockets_within(pid, lambda: [open_socket(protocol)])
    return Connection(sockets.socket(fileno=descriptor))


def _elsewhere(pid: int, work: Callable[[], tuple[Any, Sequence[Any]]]) -> tuple[Any, list[int]]:
    if os.geteuid() != 0:
        return _in_child(pid, work)
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(pid, "net", c.CLONE_NEWNET)
        try:
            result, made = work()
        finally:
            setns(own, c.CLONE_NEWNET)
        return result, [socket.detach() for socket in made]
    finally:
        os.close(own)


def _enter(pid: int, name: str, kind: int) -> None:
    namespace = open_namespace(f"/proc/{pid}/ns/{name}")
    try:
        setns(namespace, kind)
    finally:
        os.close(namespace)


def _in_child(pid: int, work: Callable[[], tuple[Any, Sequence[Any]]]) -> tuple[Any, list[int]]:
    ours, theirs = Channel.pair()
    child = start(lambda: _work(theirs, pid, work))
    theirs.close()
    try:
        made = []
        while True:
            message, descriptor = ours.receive()
            if descriptor < 0:
                break
            made.append(descriptor)
        if "errno" in message:
            raise OSError(message["errno"], os.strerror(message["errno"]))
        if not message:
            raise WherryError("a helper process ended without an answer")
        return message["result"], made
    finally:
        ours.close()
        os.waitpid(child, 0)


def _work(channel: Channel, pid: int, work: Callable[[], tuple[Any, Sequence[Any]]]) -> None:
    """In a forked child."""
    try:
        # Both are opened first: to who has entered the one, /proc shows the other no more.
        places = [
            (open_namespace(f"/proc/{pid}/ns/{name}"), kind)
            for name, kind in (("user", c.CLONE_NEWUSER), ("net", c.CLONE_NEWNET))
        ]
        for place, kind in places:
            setns(place, kind)
        result, made = work()
        for socket in made:
            channel.send({"socket": True}, socket.fileno())
        channel.send({"result": result})
    except OSError as error:
        channel.send({"errno": error.errno or 0})
    except BaseException as error:
        channel.send_error(error)
