"""The process that carries a command out: forked before the command is known.

A fork of the runner, and the pages that it copies when it first writes to them, take an
emulated guest longer than many a command. So it waits, and is told what it is in one go.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
import time

from wherry.lean import dump_json, load_json, signals, sockets
from wherry_vm.guest.rehearsal import rehearse_unless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_STREAMS = struct.Struct("3i")


class Command:
    """A child that will be a command, or end where `close` comes before `start`."""

    def __init__(self) -> None:
        self._socket, theirs = sockets.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                code = _wait(theirs)
            finally:
                os._exit(code)
        theirs.close()

    def start(self, request: Mapping[str, Any], streams: Sequence[int]) -> None:
        """Have it be what `request` says, see wherry_vm.protocol, with these streams."""
        words = {
            "op": request["op"],
            "argv": [str(word) for word in request["argv"]],
            "environment": {str(name): str(text) for name, text in request["environment"].items()},
            "terminals": [bool(each) for each in request["terminals"]],
        }
        rights = (sockets.SOL_SOCKET, sockets.SCM_RIGHTS, _STREAMS.pack(*streams))
        self._socket.sendmsg([b"\0"], [rights])
        self._socket.sendall(dump_json(words).encode())
        self._socket.close()

    def close(self) -> None:
        """Let it end where it has not been told what it is."""
        self._socket.close()


def _wait(socket: Any) -> int:
    """Be told what to do, and do it; the exit code."""
    own = socket.fileno()
    os.closerange(3, own)
    os.closerange(own + 1, 1024)
    rehearse_unless(own)
    _, rights, _, _ = socket.recvmsg(1, sockets.CMSG_SPACE(_STREAMS.size))
    if not rights:
        return 0
    streams = _STREAMS.unpack(rights[0][2])
    told = b""
    while data := socket.recv(1 << 16):
        told += data
    request = load_json(told)
    os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        if request["terminals"][number]:
            fcntl.ioctl(number, termios.TIOCSCTTY, 0)
    os.closerange(3, 1024)
    os.chdir("/")
    os.environ.update(request["environment"])
    time.tzset()
    return _command(request["argv"]) if request["op"] == "run" else _program(request["argv"])


def _command(argv: list[str]) -> int:
    """What `wherry *argv` does in a process of its own."""
    signals.signal(signals.SIGINT, signals.default_int_handler)
    sys.argv = ["wherry", *argv]
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - as long as the process
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(  # noqa: SIM115
        2, "w", buffering=1, errors="backslashreplace", closefd=False
    )
    from wherry.cli.main import main

    try:
        code = main()
    except SystemExit as end:  # a signal's, as 128+n
        code = end.code if isinstance(end.code, int) else 1
    sys.stderr.flush()
    return code


def _program(argv: list[str]) -> int:
    """Become another program; the exit code of a shell where there is none of that name."""
    signals.signal(signals.SIGPIPE, signals.SIG_DFL)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        return 127 if isinstance(error, FileNotFoundError) else 126
