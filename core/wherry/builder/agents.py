"""ssh-agents of `--ssh`: a step may ask them which keys there are, and for signatures.

What a step connects to is a socket of ours. Each message there is put to the agent, which
may be another host's, and its answer brought back (draft-ietf-sshm-ssh-agent): no key
leaves its agent, and none is added to it, removed or locked.
"""

from __future__ import annotations

import os
import struct
import sys

from wherry import origin
from wherry.errors import Unsupported, UsageError, WherryError
from wherry.forked import start
from wherry.lean import select, signals, sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from wherry.runtime import Runtime

# Message numbers of the protocol.
_FAILURE, _REQUEST_IDENTITIES, _SIGN_REQUEST = 5, 11, 13
_REFUSED = struct.pack(">IB", 1, _FAILURE)
_LONGEST = 1 << 18
"""As OpenSSH's own agent has it."""
_PATIENCE = 300
"""Seconds for an answer: an agent may ask its user first."""


def read_agents(texts: Iterable[str]) -> dict[str, str]:
    """Where the agents of `--ssh` are, by id; "" where the other host knows."""
    found: dict[str, str] = {}
    for text in texts:
        name, _, path = text.partition("=")
        found[name] = "" if origin.is_elsewhere() else _agent(name, path)
    return found


def _agent(name: str, path: str) -> str:
    path = path or os.environ.get("SSH_AUTH_SOCK", "")
    if sys.platform == "win32":
        from wherry.builder.agent_pipes import STANDARD

        return path or STANDARD
    if not path:
        raise UsageError(
            f"invalid empty ssh agent socket for {name}", hint="SSH_AUTH_SOCK is not set"
        )
    import stat

    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError as error:
        raise UsageError(f"failed to open ssh agent socket {path}: {error.strerror}") from error
    if not is_socket:
        raise UsageError(
            f"{path} is no socket of an agent", hint=f"ssh-add {path} gives the key to one"
        )
    return os.path.abspath(path)


def ask(place: str, message: bytes) -> bytes:
    """The agent's answer to a message of its protocol, both with their lengths; never raises."""
    if message[4:5] not in (bytes([_REQUEST_IDENTITIES]), bytes([_SIGN_REQUEST])):
        return _REFUSED
    try:
        stream = _connect(place)
    except OSError:
        return _REFUSED
    try:
        stream.sendall(message)
        return _message(stream.recv) or _REFUSED
    except (OSError, ValueError):
        return _REFUSED
    finally:
        stream.close()


def _connect(place: str) -> Any:
    if sys.platform == "win32":
        from wherry.builder.agent_pipes import Pipe

        return Pipe(place)
    stream = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    stream.settimeout(_PATIENCE)
    try:
        stream.connect(place)
    except OSError:
        stream.close()
        raise
    return stream


def _message(receive: Callable[[int], bytes]) -> bytes:
    """One message with its length; nothing where it ends early. Raises ValueError."""
    head = _exactly(receive, 4)
    (length,) = struct.unpack(">I", head or bytes(4))
    if not 0 < length <= _LONGEST:
        raise ValueError(f"a message of {length} bytes")
    body = _exactly(receive, length)
    return head + body if body else b""


def _exactly(receive: Callable[[int], bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = receive(size - len(data))
        if not piece:
            return b""
        data += piece
    return data


class Relay:
    """A socket at `path` that leads to an agent, served by a process of its own."""

    def __init__(self, runtime: Runtime, path: str, name: str, place: str) -> None:
        """`place` is the agent's; "" for one of the host that the build was asked for on."""
        if sys.platform == "win32":
            raise Unsupported("images are built on Linux only")
        listener = _listen(path)

        def serve() -> None:
            runtime.end_with_parent(signals.SIGKILL)
            # Who waits for what the step prints does not wait for us.
            os.closerange(0, listener.fileno())
            os.closerange(listener.fileno() + 1, 1 << 12)
            _serve(listener, lambda message: _answer(name, place, message))

        self._child = start(serve)
        listener.close()

    def close(self) -> None:
        """Let nobody use the agent any more."""
        if sys.platform == "win32":
            raise Unsupported("images are built on Linux only")
        os.kill(self._child, signals.SIGKILL)
        os.waitpid(self._child, 0)


def _listen(path: str) -> Any:
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    try:
        # The name of a socket has no more than 108 bytes.
        listener.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        os.close(directory)
    listener.listen()
    return listener


def _answer(name: str, place: str, message: bytes) -> bytes:
    if place:
        return ask(place, message)
    from binascii import a2b_base64, b2a_base64

    told = b2a_base64(message, newline=False).decode()
    try:
        return a2b_base64(origin.ask(ask="agent", name=name, message=told)["message"])
    except WherryError:
        return _REFUSED


def _serve(listener: Any, answer: Callable[[bytes], bytes]) -> None:
    """Until the process is ended."""
    poll = select.poll()
    poll.register(listener.fileno(), select.POLLIN)
    clients: dict[int, Any] = {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                client = sockets.socket(fileno=listener._accept()[0])
                # Whoever begins a message ends it.
                client.settimeout(10)
                clients[client.fileno()] = client
                poll.register(client.fileno(), select.POLLIN)
                continue
            try:
                message = _message(clients[descriptor].recv)
                clients[descriptor].sendall(answer(message))
            except (OSError, ValueError):
                poll.unregister(descriptor)
                clients.pop(descriptor).close()
