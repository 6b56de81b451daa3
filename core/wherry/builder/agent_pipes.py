"""ssh-agents on Windows: OpenSSH's listens at a named pipe, which is read and written as a file."""

from __future__ import annotations

import os
import time

STANDARD = r"\\.\pipe\openssh-ssh-agent"
_BUSY = 231  # ERROR_PIPE_BUSY of winerror.h
_PATIENCE = 5


class Pipe:
    """A connection to the pipe at `path`, with the words of a socket. Raises OSError."""

    def __init__(self, path: str) -> None:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                self._file = open(path, "r+b", buffering=0)  # noqa: SIM115 - closed by close
                return
            except OSError as error:
                # Between two that are served no end of it is free.
                if getattr(error, "winerror", 0) != _BUSY or time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def sendall(self, data: bytes) -> None:
        while data:
            data = data[self._file.write(data) or 0 :]

    def recv(self, size: int) -> bytes:
        return os.read(self._file.fileno(), size)

    def close(self) -> None:
        self._file.close()
