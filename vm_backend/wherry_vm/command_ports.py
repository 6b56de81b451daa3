"""The virtio-serial ports by which commands reach the guest's runner: see wherry_vm.protocol.

Nothing has to be encrypted on the way, nobody has to log in, and no other process of the
guest's passes on what comes. There are none where others on this host could connect to them,
which is Windows.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections import deque
from functools import partial

from wherry.container.wire import frame
from wherry.errors import MachineError
from wherry_vm.carrying import Frames
from wherry_vm.link import receive_exactly
from wherry_vm.protocol import AHEAD, CHUNK, END, OPEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_PATIENCE = 30
"""Seconds for an emulated guest that has other things to do."""

_FEW = 4


class CommandPorts:
    """The host's ends of all of them, which are ours."""

    def __init__(self, streams: Sequence[socket.socket] = ()) -> None:
        self._streams = tuple(streams)
        self._lock = threading.Lock()
        self._unused = set(range(len(self._streams)))
        self._free: deque[int] = deque()

    def open(self, numbers: Iterable[int]) -> None:
        """Use those on which the runner listens, by their numbers."""
        with self._lock:
            found = self._unused.intersection(numbers)
            self._unused -= found
            self._free.extend(sorted(found))

    def take(self, *, ahead: bool = False) -> PortChannel | None:
        """One that is free, for a command that is there, or `ahead` of one; None where none is.

        Raises MachineError.
        """
        with self._lock:
            if not self._free:
                return None
            # The one that has been free for longest: the runner is done with it.
            number = self._free.popleft()
        try:
            return PortChannel(
                self._streams[number], AHEAD if ahead else OPEN, partial(self._give_back, number)
            )
        except OSError as error:
            raise MachineError(f"cannot reach the runner in the guest: {error.strerror}") from error

    def are_few(self) -> bool:
        """Whether there are soon to be none."""
        return len(self._free) < _FEW

    def lose(self, numbers: Iterable[int]) -> None:
        """Do without these, and end what is carried there; without a number, without all."""
        lost = set(numbers) or range(len(self._streams))
        with self._lock:
            self._free = deque(number for number in self._free if number not in lost)
        for number, stream in enumerate(self._streams):
            if number in lost:
                with contextlib.suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR)

    def _give_back(self, number: int) -> None:
        with self._lock:
            self._free.append(number)


class PortChannel:
    """A port while one command has it. `end` and `sendall` may be another thread's."""

    def __init__(self, stream: socket.socket, first: int, give_back: Callable[[], None]) -> None:
        """`first` is the kind of the frame that it begins with."""
        self._stream = stream
        self._give_back = give_back
        self._frames = Frames()
        self._sending = threading.Lock()
        self._is_confirmed = self._has_ended = self._is_over = False
        self._stream.sendall(frame(first, b""))

    def confirm(self, patience: float | None = _PATIENCE) -> None:
        """Wait until the runner has answered. Raises MachineError where it does not."""
        if self._is_confirmed:
            return
        try:
            if not select.select([self._stream], [], [], patience)[0]:
                raise MachineError("the runner in the guest does not answer")
            receive_exactly(self._stream, len(frame(OPEN, b"")))
        except (OSError, ValueError) as error:
            raise MachineError(f"cannot reach the runner in the guest: {error}") from error
        self._is_confirmed = True

    def is_open(self) -> bool:
        """Whether the runner's end is there: it says nothing before it has a request."""
        return not select.select([self._stream], [], [], 0)[0]

    def sendall(self, data: bytes) -> None:
        """Send to the runner; without effect after `end`."""
        with self._sending:
            if not self._has_ended:
                self._stream.sendall(data)

    def recv(self, size: int) -> bytes:
        """What the runner has sent; nothing when it has ended, or we have and it knows.

        Raises MachineError where it never was there.
        """
        self.confirm(None)
        while not self._is_over:
            data = self._stream.recv(size)
            self._frames.follow(data)
            self._is_over = self._frames.have_ended or not data
            if self._frames.have_ended and self._has_ended:
                self._give_back()
            if not self._has_ended:
                return data
        return b""

    def end(self) -> None:
        """Say that the command is over."""
        with self._sending, contextlib.suppress(OSError):
            if not self._has_ended:
                self._has_ended = True
                self._stream.sendall(frame(END, b""))

    def close(self) -> None:
        """Have the port be somebody else's, as soon as the runner is done with it."""
        self.end()
        if not self._is_over:
            threading.Thread(target=self._drain, daemon=True, name="drain").start()

    def _drain(self) -> None:
        with contextlib.suppress(OSError, MachineError):
            self.recv(CHUNK)
