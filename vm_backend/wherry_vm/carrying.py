"""Commands on their way through the supervisor, which may have something to say to them.

What the guest's runner sends is passed on as it comes. Between two of its frames, and only
there, a message of ours fits.
"""

from __future__ import annotations

import contextlib
import socket
import threading

from wherry.container.wire import control
from wherry_vm.protocol import END

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_HEADER = 5
_PATIENCE = 1
"""Seconds for a command to take what was sent before it is dismissed."""


class Frames:
    """Where in its frames a stream of bytes is; an END frame has no more after it."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self.have_ended = False

    @property
    def are_whole(self) -> bool:
        """Whether the bytes so far end with a frame."""
        return not self._left and not self._head

    def follow(self, data: bytes) -> None:
        """Go on by `data`."""
        at = 0
        while at < len(data) and not self.have_ended:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = min(_HEADER - len(self._head), len(data) - at)
                self._head += data[at : at + step]
                if len(self._head) == _HEADER:
                    self._left = int.from_bytes(self._head[1:], "big")
                    self.have_ended = self._head[0] == END
                    self._head = b""
            at += step


class Carried:
    """The command's end of one connection, to which the guest's bytes go."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._frames = Frames()
        self._waiting = b""

    def pass_on(self, data: bytes) -> None:
        """Send what the guest has sent."""
        with self._lock:
            self._stream.sendall(data)
            self._frames.follow(data)
            self._flush()

    def say(self, message: dict[str, Any]) -> None:
        """Send a message of ours, as soon as it fits."""
        with self._lock, contextlib.suppress(OSError):
            self._waiting += control(message)
            self._flush()

    def dismiss(self, message: dict[str, Any]) -> None:
        """End the connection, with a message if it fits."""
        with contextlib.suppress(OSError):
            # Where the lock cannot be had the command does not read.
            if self._lock.acquire(timeout=_PATIENCE):
                try:
                    if self._frames.are_whole:
                        self._stream.sendall(control(message))
                finally:
                    self._lock.release()
            self._stream.shutdown(socket.SHUT_RDWR)

    def _flush(self) -> None:
        if self._waiting and self._frames.are_whole:
            self._stream.sendall(self._waiting)
            self._waiting = b""


class Audience:
    """Everybody who is carried now; who comes next hears what nobody was there for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._present: set[Carried] = set()
        self._unsaid: list[str] = []

    def warn(self, text: str, *, later: bool = True) -> None:
        """Have each say `text` on its standard error; whoever comes next, if there is nobody
        and it is worth telling `later`."""
        with self._lock:
            present = list(self._present)
            if later and not present:
                self._unsaid.append(text)
        for each in present:
            # One that does not read at the moment keeps nobody waiting.
            arguments = ({"event": "warning", "text": text},)
            threading.Thread(target=each.say, args=arguments, daemon=True).start()

    def dismiss(self, message: dict[str, Any]) -> None:
        """End all connections, with `message` as the last word."""
        with self._lock:
            present = list(self._present)
        for each in present:
            threading.Thread(target=each.dismiss, args=(message,), daemon=True).start()

    @contextlib.contextmanager
    def joined(self, stream: socket.socket) -> Iterator[Carried]:
        """The end of a command that is carried for so long."""
        carried = Carried(stream)
        with self._lock:
            unsaid, self._unsaid = self._unsaid, []
            self._present.add(carried)
        try:
            for text in unsaid:
                carried.say({"event": "warning", "text": text})
            yield carried
        finally:
            with self._lock:
                self._present.discard(carried)
