"""Channels to the guest's runner, of which one is open before a command wants it.

Opening one takes an emulated guest longer than many a command: the forks of the runner that
wait at its other end, and where it goes through SSH a round trip through sshd.
"""

from __future__ import annotations

import contextlib
import socket
import threading

from wherry.errors import MachineError
from wherry_vm.protocol import CHUNK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    class Channel(Protocol):
        """A port, or a channel of an SSH connection; `end` and `sendall` are of any thread."""

        def confirm(self) -> None:
            """Wait until the runner has answered. Raises MachineError where it does not."""

        def is_open(self) -> bool:
            """Whether the runner is still there; it has had no request."""

        def sendall(self, data: bytes, /) -> None:
            """Send to the runner, which may wait."""

        def recv(self, size: int, /) -> bytes:
            """What the runner has sent; nothing at its end, which comes after `end`."""

        def end(self) -> None:
            """Say that the command is over."""

        def close(self) -> None:
            """Have no more to do with it."""


_MANNERS = 1.0
"""Seconds that the next channel waits for a command that runs: it has the guest to itself."""


class Channels:
    """What `open_channel(ahead)` opens, which raises MachineError where it cannot."""

    def __init__(self, open_channel: Callable[[bool], Channel]) -> None:
        self._open_channel = open_channel
        self._changed = threading.Condition()
        self._spare: Channel | None = None
        self._in_use = 0
        self._is_wanted = False
        threading.Thread(target=self._prepare, daemon=True, name="channels").start()

    @contextlib.contextmanager
    def open(self, *, ahead: bool) -> Iterator[Channel]:
        """A channel, until the command that it is for has ended. Raises MachineError.

        It is the one that was opened ahead only if that may be.
        """
        with self._changed:
            spare, self._spare = self._spare, None
            self._in_use += 1
            self._is_wanted = True
            self._changed.notify_all()
        try:
            if spare is not None and not (ahead and spare.is_open()):
                spare.close()
                spare = None
            with contextlib.closing(spare or self._open_channel(False)) as channel:
                if not ahead:
                    channel.confirm()
                yield channel
        finally:
            with self._changed:
                self._in_use -= 1
                self._changed.notify_all()

    def _prepare(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_wanted)
                self._is_wanted = False
                self._changed.wait_for(lambda: not self._in_use, _MANNERS)
                if self._spare is not None:
                    continue
            # Where it cannot be had whoever wants one will be told why.
            with contextlib.suppress(MachineError), contextlib.ExitStack() as stack:
                channel = stack.enter_context(contextlib.closing(self._open_channel(True)))
                channel.confirm()
                stack.pop_all()
                with self._changed:
                    self._spare = channel


def join(stream: socket.socket, channel: Channel, pass_on: Callable[[bytes], None]) -> None:
    """Carry bytes between a command and its channel until the guest's end is closed.

    `pass_on` sends what the guest has sent.
    """
    threading.Thread(target=_pump, args=(stream, channel), daemon=True, name="to guest").start()
    with contextlib.suppress(OSError):
        while data := channel.recv(CHUNK):
            pass_on(data)
    with contextlib.suppress(OSError):
        stream.shutdown(socket.SHUT_RDWR)


def _pump(stream: socket.socket, channel: Channel) -> None:
    """From the command to the guest; when the command is gone, the guest's end is closed."""
    with contextlib.suppress(OSError):
        while data := stream.recv(CHUNK):
            channel.sendall(data)
    channel.end()
