"""Questions to the host, one JSON object a connection, at a UNIX socket of the guest's.

Who asks waits while the question is on its way; whoever carries it gives it a number, by
which the answer finds back. `wherry.origin` has the asking side.
"""

from __future__ import annotations

from wherry.lean import dump_json, load_json, sockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_LONGEST = 1 << 20
_PATIENCE = 10
"""Seconds for a question that has begun to end."""


class Questions:
    """A socket at `path`, and those who wait for an answer."""

    def __init__(self, path: str) -> None:
        self._listener: Any = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        self._waiting: dict[int, Any] = {}
        self._last = 0

    def fileno(self) -> int:
        """What is readable when somebody asks."""
        number: int = self._listener.fileno()
        return number

    def hear(self) -> tuple[int, dict[str, Any]] | None:
        """A question and its number; None where nothing sensible was asked."""
        stream = sockets.socket(fileno=self._listener._accept()[0])
        stream.settimeout(_PATIENCE)
        question = b""
        try:
            while not question.endswith(b"\n") and len(question) < _LONGEST:
                data = stream.recv(1 << 16)
                if not data:
                    break
                question += data
            message = load_json(question)
        except (OSError, ValueError):
            stream.close()
            return None
        self._last += 1
        self._waiting[self._last] = stream
        return self._last, message

    def answer(self, message: Mapping[str, Any]) -> None:
        """Give the host's answer, {"id": …, "answer": …}, to whoever asked."""
        stream = self._waiting.pop(int(message["id"]), None)
        if stream is not None:
            try:
                stream.sendall(dump_json(message["answer"]).encode())
            except OSError:
                pass  # it waits no longer
            stream.close()

    def close(self) -> None:
        """Hear and answer no more."""
        self._listener.close()
        for stream in self._waiting.values():
            stream.close()
