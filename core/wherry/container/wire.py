"""What commands and a container's monitor say to each other, over a UNIX stream socket.

A frame is one byte of kind, four bytes of length (big endian), and the payload:

    STDIN, STDOUT, STDERR   bytes of a stream
    CONTROL                 a JSON object: a request ("op"), or what happened ("event",
                            "error"); documented in wherry_linux.monitor
"""

from __future__ import annotations

import os

from wherry import paths
from wherry.errors import Conflict, WherryError, from_json
from wherry.lean import dump_json, load_json, posix, sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.oci.runtime_spec import Spec

STDIN, STDOUT, STDERR, CONTROL = range(4)

# Streams come in pieces of 64 KiB, and no message is longer.
_LONGEST = 1 << 20

SOCKET = "attach.sock"


def frame(kind: int, payload: bytes) -> bytes:
    """The bytes of one frame."""
    return bytes((kind,)) + len(payload).to_bytes(4, "big") + payload


def control(message: dict[str, Any]) -> bytes:
    """The bytes of a CONTROL frame."""
    return frame(CONTROL, dump_json(message).encode())


class Parser:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self.buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that are whole with `data`. Raises ValueError for what is no frame."""
        buffer = self.buffer
        buffer += data
        frames = []
        start = 0
        while len(buffer) - start >= 5:
            length = int.from_bytes(buffer[start + 1 : start + 5], "big")
            if length > _LONGEST:
                raise ValueError(f"a frame of {length} bytes")
            end = start + 5 + length
            if len(buffer) < end:
                break
            frames.append((buffer[start], bytes(buffer[start + 5 : end])))
            start = end
        del buffer[:start]
        return frames


class Connection:
    """A command's end of the socket."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._parser = Parser()
        self._frames: list[tuple[int, bytes]] = []
        # Of the connection of a start: what the monitor said, and the spec it was given.
        self.greeting: dict[str, Any] = {}
        self.spec: Spec | None = None

    @classmethod
    def open(cls, container_id: str) -> Connection:
        """Connect to the monitor of a container. Raises Conflict where none listens."""
        socket = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM | sockets.SOCK_CLOEXEC)
        try:
            # A socket's path may have 107 bytes, which a WHERRY_ROOT can exceed.
            directory = os.open(paths.run_container(container_id), posix.O_PATH | posix.O_DIRECTORY)
            try:
                socket.connect(f"/proc/self/fd/{directory}/{SOCKET}")
            finally:
                os.close(directory)
        except OSError:
            socket.close()
            raise Conflict(f"container {container_id[:12]} is not running") from None
        return cls(socket)

    def fileno(self) -> int:
        return int(self._socket.fileno())

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """Send a frame; False if the monitor is gone."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def send_some(self, data: bytes | bytearray) -> int:
        """Send what fits without waiting; how much it was. All of it if the monitor is gone."""
        try:
            return int(self._socket.send(data, sockets.MSG_DONTWAIT))
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def pending(self) -> bool:
        """Whether `receive` would return without waiting."""
        return bool(self._frames)

    def receive(self) -> tuple[int, bytes] | None:
        """The next frame; None when the monitor has closed the connection."""
        while not self._frames:
            try:
                data = self._socket.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._frames = self._parser.feed(data)
        return self._frames.pop(0)

    def expect(self, event: str) -> dict[str, Any]:
        """The next control message, which has to be this event. Raises what it tells."""
        while True:
            received = self.receive()
            if received is None:
                raise WherryError("the container's monitor ended without an answer")
            kind, payload = received
            if kind != CONTROL:
                continue
            message: dict[str, Any] = load_json(payload)
            if "error" in message:
                raise from_json(message["error"])
            if message.get("event") == event:
                return message

    def request(self, message: dict[str, Any], *, patience: float | None = None) -> dict[str, Any]:
        """Ask for an operation and wait until it is done, `patience` seconds at most.

        Raises what went wrong.
        """
        if not self.send(control(message)):
            raise Conflict("the container is not running")
        self._socket.settimeout(patience)
        try:
            return self.expect("done")
        except TimeoutError:
            raise WherryError("the container's monitor does not answer") from None
