"""A command that only tells what there is, carried out by its server itself.

A process of its own for the command, and what the two say to each other, take an emulated
guest longer than to list the containers. What a brief command says is kept in memory, and sent
with its exit code, at its end.
"""

from __future__ import annotations

import fcntl
import os

from wherry.container.wire import CONTROL, STDERR, STDOUT, control, frame
from wherry.lean import load_json, signals
from wherry_vm.guest.command import carry_out, enter
from wherry_vm.protocol import CHUNK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry_vm.guest.connection import Connection

# What they do to a process without a handler for them does not end it.
_HARMLESS = frozenset(
    (
        signals.SIGCHLD, signals.SIGCONT, signals.SIGSTOP, signals.SIGTSTP, signals.SIGTTIN,
        signals.SIGTTOU, signals.SIGURG, signals.SIGWINCH,
    )
)  # fmt: skip


def answer(
    connection: Connection, request: Mapping[str, Any], frames: list[tuple[int, bytes]]
) -> None:
    """Carry out what `request` asks for, see wherry_vm.protocol, and send what it says.

    `frames` are what has come after the request already.
    """
    terminals = [bool(each) for each in request["terminals"]]
    argv = [str(word) for word in request["argv"]]
    kinds = _keep_outputs(terminals)
    enter(request["environment"])
    try:
        with _Host(connection) as host:
            host.obey(frames)
            code = carry_out(argv, on_terminal=terminals[1])
    except KeyboardInterrupt:
        code = 128 + signals.SIGINT
    except SystemExit as end:
        code = int(end.code or 0)
    said = b"".join(frame(kind, data) for number, kind in kinds for data in _pieces(number))
    try:
        connection.send_all(said + control({"event": "exit", "code": code}))
    except (BrokenPipeError, ConnectionResetError):
        pass  # nobody waits for it any more


def _keep_outputs(terminals: Sequence[bool]) -> list[tuple[int, int]]:
    """Have 0 be nothing, and 1 and 2 files in memory; which to send as which kind of frame.

    They are one file where both are the terminal, which shows what is said in its order.
    """
    kinds = [(1, STDOUT)]
    _become(0, os.open(os.devnull, os.O_RDONLY))
    _become(1, os.memfd_create("output", 0))
    if terminals[1] and terminals[2]:
        os.dup2(1, 2)
    else:
        _become(2, os.memfd_create("errors", 0))
        kinds.append((2, STDERR))
    return kinds


def _become(number: int, descriptor: int) -> None:
    os.dup2(descriptor, number)
    os.close(descriptor)


def _pieces(descriptor: int) -> list[bytes]:
    """All that is in a file."""
    size = os.fstat(descriptor).st_size
    return [os.pread(descriptor, CHUNK, at) for at in range(0, size, CHUNK)]


class _Host:
    """The other side while a command runs: SIGIO tells that it says something, or is gone.

    What it says to the command are signals. They, and its end, raise what ends the command.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> _Host:
        signals.signal(signals.SIGIO, self._hear)
        self._connection.set_blocking(False)
        fcntl.fcntl(self._connection, fcntl.F_SETOWN, os.getpid())
        self._set_async(os.O_ASYNC)
        # What came before was not told.
        self._hear()
        return self

    def __exit__(self, *_: object) -> None:
        signals.signal(signals.SIGIO, signals.SIG_IGN)
        self._set_async(0)
        self._connection.set_blocking(True)

    def _set_async(self, flag: int) -> None:
        flags = fcntl.fcntl(self._connection, fcntl.F_GETFL) & ~os.O_ASYNC
        fcntl.fcntl(self._connection, fcntl.F_SETFL, flags | flag)

    def obey(self, frames: list[tuple[int, bytes]]) -> None:
        for kind, payload in frames:
            message = load_json(payload) if kind == CONTROL else {}
            name = str(message.get("name"))
            number = getattr(signals, name, None)
            if message.get("op") == "signal" and name[:3] == "SIG" and isinstance(number, int):
                _take(number)

    def _hear(self, *_: object) -> None:
        try:
            while frames := self._connection.receive():
                self.obey(frames)
        except BrokenPipeError:
            # As if the host's own command had been killed.
            raise SystemExit(128 + signals.SIGKILL) from None


def _take(number: int) -> None:
    """Do what a signal does to this process: SIGIO may have come in the place of it."""
    handler = signals.getsignal(number)
    if callable(handler):
        handler(number, None)
    elif handler == signals.SIG_DFL and number not in _HARMLESS:
        raise SystemExit(128 + number)
