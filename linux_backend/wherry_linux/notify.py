"""`--sdnotify`: whoever gave the command NOTIFY_SOCKET hears that the container is there.

sd_notify(3) has the protocol: datagrams of lines NAME=content. The monitor is the process
to keep an eye on (MAINPID), for it is there as long as the container. What is ready is

    conmon      the container, once its program runs
    healthy     the container, once it is healthy
    container   what its program says, on a socket that is mounted into it
"""

from __future__ import annotations

import os
import select

from wherry.container.notify import NAME, directory, wanted
from wherry.files import remove_file
from wherry.lean import sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry_linux.monitor import Monitor

# What a program may say for itself. The rest is about processes and descriptors, which are
# others outside.
_PASSED_ON = (
    b"READY=",
    b"RELOADING=",
    b"STOPPING=",
    b"MONOTONIC_USEC=",
    b"STATUS=",
    b"ERRNO=",
    b"BUSERROR=",
    b"WATCHDOG=",
    b"WATCHDOG_USEC=",
    b"EXTEND_TIMEOUT_USEC=",
    b"X_",
)


class Notifier:
    """What one monitor tells, and lets the container tell."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._mode = wanted(monitor.container.body)
        self.listener: Any = None

    def listen(self) -> None:
        """Let the container talk, where it is the container that is asked."""
        if self._mode != "container" or self.listener is not None:
            return
        kind = sockets.SOCK_DGRAM | sockets.SOCK_CLOEXEC | sockets.SOCK_NONBLOCK
        listener = sockets.socket(sockets.AF_UNIX, kind)
        place = os.open(directory(self._monitor.container), os.O_RDONLY | os.O_CLOEXEC)
        os.fchdir(place)  # a socket's path may have no more than 107 bytes
        remove_file(NAME)
        listener.bind(NAME)
        os.chmod(NAME, 0o666)  # its users have ids of their own
        os.chdir("/")
        os.close(place)
        self.go_on(listener)

    def go_on(self, listener: Any) -> None:
        """Hear what comes in at `listener`."""
        self.listener = listener
        self._monitor.watch(listener.fileno(), select.EPOLLIN, self._pass_on)

    def started(self) -> None:
        """The container runs."""
        ready = b"\nREADY=1" if self._mode == "conmon" else b""
        _tell(b"MAINPID=%d%s" % (os.getpid(), ready))

    def healthy(self) -> None:
        """The container has become healthy."""
        if self._mode == "healthy":
            _tell(b"READY=1")

    def _pass_on(self, _mask: int) -> None:
        try:
            said = self.listener.recv(1 << 16)
        except OSError:
            return
        lines = [line for line in said.split(b"\n") if line.startswith(_PASSED_ON)]
        if lines:
            _tell(b"\n".join(lines))


def _tell(message: bytes) -> None:
    """Say `message`; nobody is to fail because nobody listens."""
    address = os.environb.get(b"NOTIFY_SOCKET", b"")
    if address.startswith(b"@"):
        address = b"\0" + address[1:]
    talker = sockets.socket(
        sockets.AF_UNIX, sockets.SOCK_DGRAM | sockets.SOCK_CLOEXEC | sockets.SOCK_NONBLOCK
    )
    try:
        talker.sendto(message, address)
    except OSError:
        pass
    finally:
        talker.close()
