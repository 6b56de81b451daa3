"""Where commands reach a machine's supervisor: its local socket, and who may speak there.

RUN/machines/NAME/supervisor.json says which process it is; where there are no UNIX sockets
also the port of 127.0.0.1, and the key that tells the user's processes from others'.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time

from wherry.container.wire import Parser
from wherry.files import remove_file, write_json
from wherry.lean import load_json
from wherry_vm.link import HANDSHAKE, SOCKET, prove, with_short_path
from wherry_vm.orphan import SUPERVISOR_FILE
from wherry_vm.protocol import first_frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_BACKLOG = 128
_RECOVERY = 0.5


class Reception:
    """Listens in `directory`, and has `serve` serve each who may speak, in a thread of its own."""

    def __init__(
        self, directory: str, serve: Callable[[socket.socket, dict[str, Any]], None]
    ) -> None:
        self._directory = directory
        self._serve = serve
        self._key = os.urandom(32)
        self._is_closed = False
        self._listener = self._listen()
        threading.Thread(target=self._accept, daemon=True, name="accept").start()

    def close(self, patience: float) -> None:
        """Listen no more; who is served may take so long to hear the last of it."""
        self._is_closed = True
        with contextlib.suppress(OSError):
            # Who waits in accept() would keep it open.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in threading.enumerate():
            if thread.name == "client":
                thread.join(patience)

    def _listen(self) -> socket.socket:
        record: dict[str, Any] = {"pid": os.getpid()}
        if hasattr(socket, "AF_UNIX"):
            remove_file(os.path.join(self._directory, SOCKET))
            listener = socket.socket(socket.AF_UNIX)
            with_short_path(self._directory, SOCKET, listener.bind)
            listener.listen(_BACKLOG)
        else:
            listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
            record.update(port=listener.getsockname()[1], key=self._key.hex())
        write_json(os.path.join(self._directory, SUPERVISOR_FILE), record)
        return listener

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                time.sleep(_RECOVERY)  # no descriptor is free: some will be
                continue
            threading.Thread(target=self._meet, args=(stream,), daemon=True, name="client").start()

    def _meet(self, stream: socket.socket) -> None:
        """Serve one connection."""
        with stream, contextlib.suppress(OSError, ValueError):
            if self._is_ours(stream) and (frames := first_frames(stream, Parser())):
                self._serve(stream, load_json(frames[0][1]))

    def _is_ours(self, stream: socket.socket) -> bool:
        """Whether the same user is at the other end."""
        if not hasattr(socket, "AF_UNIX"):
            stream.settimeout(HANDSHAKE)
            prove(stream, self._key, b"supervisor", b"command")
            stream.settimeout(None)
            return True
        if sys.platform == "linux":
            import struct

            size = struct.calcsize("3i")
            credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
            _, uid, _ = struct.unpack("3i", credentials)
            return uid in (os.geteuid(), 0)
        return True  # nobody else can enter the directory
