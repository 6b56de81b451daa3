"""Messages between a runtime and the process it is making into a container."""

from __future__ import annotations

import os
import select

from wherry.errors import WherryError, as_ours, from_json, to_json
from wherry.lean import dump_json, load_json, sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_MESSAGE = 65536


# A character may take six bytes of JSON.
_LONGEST_TEXT = 8000


def _shorten(text: str) -> str:
    """`text` without its middle where it is very long: a command may be."""
    if len(text) <= _LONGEST_TEXT:
        return text
    return f"{text[: _LONGEST_TEXT // 2]} […] {text[-_LONGEST_TEXT // 2 :]}"


class Channel:
    """One end of a socket that carries JSON messages, each with at most one descriptor."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends."""
        ours, theirs = sockets.socketpair(sockets.AF_UNIX, sockets.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        return int(self._socket.fileno())

    def close(self) -> None:
        self._socket.close()

    def has_peer(self) -> bool:
        """Whether anybody is at the other end."""
        poll = select.poll()
        poll.register(self.fileno(), 0)
        return not poll.poll(0)

    def send(self, message: dict[str, Any], descriptor: int = -1) -> None:
        """Send a message. A peer that is gone is not an error: nobody wants to know."""
        rights = []
        if descriptor >= 0:
            rights = [
                (
                    sockets.SOL_SOCKET,
                    sockets.SCM_RIGHTS,
                    descriptor.to_bytes(4, "little"),
                )
            ]
        try:
            self._socket.sendmsg([dump_json(message).encode()], rights, sockets.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def send_error(self, error: BaseException) -> None:
        """Send what `receive` raises at the other end, shortened to what a message holds."""
        ours = as_ours(error)
        ours.message = _shorten(ours.message)
        self.send({"error": to_json(ours)})

    def receive(self) -> tuple[dict[str, Any], int]:
        """The next message and its descriptor (-1 without), which the caller owns.

        ({}, -1) at the end. Raises the error that the peer sent.
        """
        while True:
            try:
                data, rights, _, _ = self._socket.recvmsg(_MAX_MESSAGE, sockets.CMSG_SPACE(4))
                break
            except InterruptedError:
                continue
            except ConnectionResetError:
                return {}, -1
        descriptor = -1
        for level, kind, payload in rights:
            if (level, kind) == (sockets.SOL_SOCKET, sockets.SCM_RIGHTS):
                descriptor = int.from_bytes(payload[:4], "little")
                os.set_inheritable(descriptor, False)
        if not data:
            return {}, descriptor
        if len(data) == 4:
            # The trampoline writes no JSON, which could be as short as this but is not.
            return {"errno": int.from_bytes(data, "little")}, descriptor
        message = load_json(data)
        if "error" in message:
            raise from_json(message["error"])
        return message, descriptor

    def expect(self, what: str) -> tuple[dict[str, Any], int]:
        """The next message, which has to have the key `what`."""
        message, descriptor = self.receive()
        if what not in message:
            raise WherryError(
                "the container's first process ended before it was ready"
                if not message
                else f"unexpected message {message} instead of {what}"
            )
        return message, descriptor
