"""Waits for commands, and has each served by a fork."""

from __future__ import annotations

import os
import select
import sys

from wherry_vm.guest.connection import Connection, Port
from wherry_vm.guest.serve import serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class Runner:
    """Serves every command in a fork.

    The number of a port that cannot be used any more, since its server has not ended as it
    should have, is written to `losses` as a byte.
    """

    def __init__(self, listener: Any, ports: dict[int, int], losses: int) -> None:
        self._listener = listener
        self._losses = losses
        # Its port, or -1, by the descriptor (pidfd_open(2)) of each server.
        self._servers: dict[int, int] = {}
        self._numbers = {descriptor: number for number, descriptor in ports.items()}
        self._poll = select.poll()

    def run(self) -> None:
        """For ever."""
        for each in (self._listener.fileno(), *self._numbers):
            self._poll.register(each, select.POLLIN)
        while True:
            for descriptor, mask in self._poll.poll():
                if descriptor in self._servers:
                    self._see_off(descriptor)
                elif descriptor not in self._numbers:
                    connection = self._listener._accept()[0]
                    self._serve(Connection, connection)
                    os.close(connection)
                else:
                    # It is the server's until that has ended.
                    self._poll.unregister(descriptor)
                    if mask & select.POLLIN:
                        self._serve(Port, descriptor)

    def _serve(self, kind: type[Connection], descriptor: int) -> None:
        pid = os.fork()
        if pid == 0:
            self._be_server(kind, descriptor)
        server = os.pidfd_open(pid)
        self._servers[server] = descriptor if kind is Port else -1
        self._poll.register(server, select.POLLIN)

    def _be_server(self, kind: type[Connection], descriptor: int) -> NoReturn:
        """Serve a command, having nothing of the runner's but `descriptor`."""
        code = 1
        try:
            self._listener.close()
            for each in (*self._numbers, *self._servers, self._losses):
                if each not in (-1, descriptor):
                    os.close(each)
            serve(kind(descriptor))
            code = 0
        except Exception:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)

    def _see_off(self, server: int) -> None:
        """Let a port of a server that has ended be for the next command."""
        self._poll.unregister(server)
        port = self._servers.pop(server)
        result = os.waitid(os.P_PIDFD, server, os.WEXITED)
        os.close(server)
        if port < 0:
            return
        if result is not None and (result.si_code, result.si_status) == (os.CLD_EXITED, 0):
            self._poll.register(port, select.POLLIN)
        elif self._losses >= 0:
            os.write(self._losses, bytes((self._numbers[port],)))
