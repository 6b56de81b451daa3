"""Where commands in the guest have their host publish ports: see wherry.engine.published."""

from __future__ import annotations

import json
import os
import socket

from wherry import paths
from wherry.engine.published import SOCKET
from wherry.files import make_dir, remove_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LONGEST = 1 << 16


class Ports:
    """The socket, and those who wait for the host's answer."""

    def __init__(self) -> None:
        path = os.path.join(make_dir(paths.run()), SOCKET)
        remove_file(path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(16)
        self._waiting: dict[int, socket.socket] = {}
        self._last = 0

    def fileno(self) -> int:
        """What is readable when somebody asks."""
        return self._listener.fileno()

    def hear(self) -> dict[str, Any] | None:
        """The event for the host; None where nothing sensible was asked."""
        stream, _ = self._listener.accept()
        stream.settimeout(5)
        question = b""
        try:
            while not question.endswith(b"\n") and len(question) < _LONGEST:
                data = stream.recv(4096)
                if not data:
                    break
                question += data
            message = json.loads(question)
        except (OSError, ValueError):
            stream.close()
            return None
        self._last += 1
        self._waiting[self._last] = stream
        return {"event": "ports", "id": self._last, **message}

    def answer(self, message: dict[str, Any]) -> None:
        """Hand the host's answer on."""
        stream = self._waiting.pop(int(message["id"]), None)
        if stream is not None:
            with stream:
                try:
                    stream.sendall(json.dumps(message["answer"]).encode())
                except OSError:
                    pass  # it waits no longer
