"""A command's connection to the machine's supervisor, on this host alone.

On POSIX it is a UNIX socket in a directory that only the user can enter. CPython has none
on Windows: there it is a port of 127.0.0.1, and both sides prove that they know a key that
only the user can read (HMAC-SHA-256 of a number that the other side chose).
"""

from __future__ import annotations

import os
import sys
import time

from wherry.errors import MachineError
from wherry.files import read_json
from wherry.lean import sockets
from wherry_vm.protocol import CHUNK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LOOK = 0.2
"""Seconds after which is looked whether to wait on. Windows lets Python see Ctrl-C then."""

NONCE = 32

HANDSHAKE = 20
"""Seconds for both sides to show that they are who they are, on a busy machine too."""

SOCKET = "supervisor.sock"

_LONGEST_PATH = 103
"""Bytes of a socket's path on macOS; Linux has four more."""


class Link:
    """A stream of bytes; sends may come from several threads, receives from one."""

    def __init__(self, socket: Any) -> None:
        import _thread

        self._socket = socket
        self._sending = _thread.allocate_lock()
        self._deadline = 0.0
        if sys.platform == "win32":
            socket.settimeout(_LOOK)

    def send(self, data: bytes) -> None:
        """Send all of `data`; where the other side is gone, `receive` will tell."""
        view = memoryview(data)
        with self._sending:
            while view:
                try:
                    view = view[self._socket.send(view) :]
                except TimeoutError:
                    continue  # the limit is one of `receive`
                except OSError:
                    return

    def receive(self) -> bytes:
        """What has come; nothing when the other side is gone."""
        while True:
            try:
                data: bytes = self._socket.recv(CHUNK)
                return data
            except TimeoutError:
                if self._deadline and time.monotonic() > self._deadline:
                    raise
            except OSError:
                return b""

    def expect_within(self, seconds: float) -> None:
        """Have `receive` raise TimeoutError where it still waits when they are over."""
        self._deadline = time.monotonic() + seconds
        self._socket.settimeout(min(seconds, _LOOK))

    def abandon(self) -> None:
        """End `receive`, from another thread."""
        try:
            self._socket.shutdown(sockets.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self._socket.close()


def connect(directory: str) -> Link | None:
    """The supervisor whose run directory this is; None where none answers."""
    if hasattr(sockets, "AF_UNIX"):
        return _connect_unix(directory)
    return _connect_port(directory)


def _connect_unix(directory: str) -> Link | None:
    socket = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    try:
        with_short_path(directory, SOCKET, socket.connect)
    except (FileNotFoundError, ConnectionRefusedError):
        socket.close()
        return None
    except OSError as error:
        socket.close()
        path = os.path.join(directory, SOCKET)
        raise MachineError(f"cannot reach the machine at {path}: {error.strerror}") from error
    return Link(socket)


def with_short_path(directory: str, name: str, act: Callable[[str], object]) -> None:
    """Have `act` done with a path of the socket `name` in `directory`, by way of the working
    directory where it would be longer than the path of one may be."""
    path = os.path.join(directory, name)
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        act(path)
        return
    before = os.open(os.curdir, os.O_RDONLY)
    try:
        os.chdir(directory)
        act(name)
    finally:
        os.chdir(before)
        os.close(before)


def _connect_port(directory: str) -> Link | None:
    try:
        where = read_json(os.path.join(directory, "supervisor.json"))
        key = bytes.fromhex(where["key"])
        address = ("127.0.0.1", int(where["port"]))
    except FileNotFoundError:
        return None
    socket = sockets.socket(sockets.AF_INET, sockets.SOCK_STREAM)
    try:
        socket.connect(address)
        socket.settimeout(HANDSHAKE)
        prove(socket, key, b"command", b"supervisor")
    except OSError:
        # Nothing listens there any more, or something that is not ours.
        socket.close()
        return None
    socket.settimeout(None)
    return Link(socket)


def prove(socket: Any, key: bytes, our_role: bytes, their_role: bytes) -> None:
    """Show that we know `key`, and that the other side does. Raises OSError.

    The roles keep an answer from being sent back as a question.
    """
    import hmac

    ours = os.urandom(NONCE)
    socket.sendall(ours)
    theirs = receive_exactly(socket, NONCE)
    socket.sendall(hmac.digest(key, our_role + theirs, "sha256"))
    expected = hmac.digest(key, their_role + ours, "sha256")
    if not hmac.compare_digest(receive_exactly(socket, 32), expected):
        raise OSError("the other side does not know the key")


def receive_exactly(socket: Any, size: int) -> bytes:
    """`size` bytes. Raises ConnectionError where there are fewer."""
    data = b""
    while len(data) < size:
        more = socket.recv(size - len(data))
        if not more:
            raise ConnectionError("the connection ended")
        data += more
    return data
