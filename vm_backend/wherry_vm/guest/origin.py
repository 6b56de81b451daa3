"""What a command in the guest asks of its host: see wherry.origin.

Each command has a UNIX socket of its own, in a directory that root alone can enter, and a
directory with what the host's docker configuration says, in memory like all of /run.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from binascii import a2b_base64

from wherry.lean import dump_json, load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

_LONGEST = 1 << 20


class Origin:
    """The place where one command asks, and those who wait for an answer."""

    def __init__(self, directory: str) -> None:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self.directory = tempfile.mkdtemp(dir=directory)
        self.path = os.path.join(self.directory, "socket")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self._waiting: dict[int, socket.socket] = {}
        self._next = 0

    def environment(self, configuration: Mapping[str, str]) -> dict[str, str]:
        """What tells a command where to ask, and where its configuration is."""
        place = os.path.join(self.directory, "configuration")
        for name, content in configuration.items():
            path = os.path.join(place, *_parts(name))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(a2b_base64(content))
        return {"WHERRY_ORIGIN": self.path, "DOCKER_CONFIG": place}

    def hear(self, tell: Callable[[dict[str, Any]], None]) -> None:
        """Take a question, and pass it on."""
        stream, _ = self.listener.accept()
        stream.settimeout(10)
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
            return
        self._next += 1
        self._waiting[self._next] = stream
        tell({"event": "ask", "id": self._next, "question": message})

    def answer(self, message: Mapping[str, Any]) -> None:
        """Give an answer of the host's to whoever asked."""
        stream = self._waiting.pop(int(message["id"]), None)
        if stream is not None:
            with stream:
                try:
                    stream.sendall(dump_json(message["answer"]).encode())
                except OSError:
                    pass  # it waits no longer

    def close(self) -> None:
        """Forget it all."""
        self.listener.close()
        for stream in self._waiting.values():
            stream.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def _parts(name: str) -> list[str]:
    """A name below the directory. Raises ValueError for one that leads elsewhere."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"no name of a configuration file: {name!r}")
    return parts
