"""A command's connection to the host: a socket, or a port that it has for so long.

What they carry is told in wherry_vm.protocol.
"""

from __future__ import annotations

import os
import select

from wherry.container.wire import Parser, frame
from wherry.files import write_all
from wherry_vm.protocol import AHEAD, CHUNK, END, OPEN

_OPENED = frame(OPEN, b"")

_MANNERS = 200
"""Milliseconds for the last word to be passed on by others, who share the processor with us."""


class Connection:
    """One that is a socket, by its descriptor, which stays the caller's.

    It `is_ahead` where the request may be long in coming.
    """

    is_ahead = True

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._parser = Parser()

    def fileno(self) -> int:
        return self._descriptor

    def set_blocking(self, blocking: bool) -> None:
        """Whether `receive` and `send` wait."""
        os.set_blocking(self._descriptor, blocking)

    def receive(self) -> list[tuple[int, bytes]]:
        """Some of the frames that come, which may be none. Raises BrokenPipeError at the end."""
        try:
            data = self._read()
        except BlockingIOError:
            return []
        except ConnectionResetError:
            data = b""
        if not data:
            raise BrokenPipeError
        return self._parser.feed(data)

    def first(self) -> list[tuple[int, bytes]]:
        """The request, and what came along; none where the host has no command after all."""
        try:
            while not (frames := self.receive()):
                pass
        except BrokenPipeError:
            return []
        return frames

    def send(self, data: bytes | bytearray) -> int:
        """Send some of `data`; how much. Raises BrokenPipeError, ConnectionResetError."""
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0

    def send_all(self, data: bytes) -> None:
        """Send all of it, which may wait. Raises BrokenPipeError, ConnectionResetError."""
        write_all(self._descriptor, data)

    def finish(self) -> None:
        """See the command off: to end takes this process longer than to pass its last word on,
        for which the host waits."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.poll(_MANNERS)

    def _read(self) -> bytes:
        return os.read(self._descriptor, CHUNK)


class Port(Connection):
    """One that is a port, by its descriptor; between the host's first frame and the END of both."""

    _is_blocking = True
    _has_ended = False

    def __init__(self, descriptor: int) -> None:
        """Raises BrokenPipeError where the port itself has ended."""
        super().__init__(descriptor)
        # Whoever was here before may have left it as it was for him.
        self.set_blocking(True)
        # What is left in the port when this has been read is the request.
        first = b""
        while (left := len(_OPENED) - len(first)) and (data := os.read(descriptor, left)):
            first += data
        if left:
            raise BrokenPipeError
        self.is_ahead = first[0] == AHEAD
        # The host hears that there is somebody.
        self.send_all(_OPENED)

    def set_blocking(self, blocking: bool) -> None:
        self._is_blocking = blocking
        super().set_blocking(blocking)

    def receive(self) -> list[tuple[int, bytes]]:
        frames = super().receive()
        if any(kind == END for kind, _ in frames):
            self._has_ended = True
            raise BrokenPipeError
        return frames

    def finish(self) -> None:
        """Read all that the host still says, and free the port. Raises BrokenPipeError where
        the port itself has ended, ValueError where what comes makes no sense."""
        self.set_blocking(True)
        while not self._has_ended:
            try:
                self.receive()
            except BrokenPipeError:
                if not self._has_ended:
                    raise
        self.send_all(frame(END, b""))

    def _read(self) -> bytes:
        """A port gives a page at a time."""
        data = super()._read()
        if self._is_blocking or not data:
            return data
        pieces, size = [data], len(data)
        try:
            while size < CHUNK and (data := super()._read()):
                pieces.append(data)
                size += len(data)
        except BlockingIOError:
            pass
        return b"".join(pieces)
