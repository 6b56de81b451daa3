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
from io import TextIOWrapper

from wherry.lean import dump_json, load_json, signals, sockets
from wherry_vm.guest.rehearsal import rehearse, rehearse_unless

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

_STREAMS = struct.Struct("3i")
_CODE = struct.Struct("B")


class Command:
    """A child that will be a command, or end where `close` comes before `start`."""

    def __init__(self, *, is_ahead: bool) -> None:
        """Fork it; `is_ahead` is what Connection has."""
        self._socket, theirs = sockets.socketpair()
        self._ended: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                code = _wait(theirs, is_ahead=is_ahead)
            except Exception:
                sys.excepthook(*sys.exc_info())
            finally:
                _end(theirs, code)
        theirs.close()

    def fileno(self) -> int:
        """What is readable when there is something for `hear`."""
        number: int = self._socket.fileno()
        return number

    def start(self, request: Mapping[str, Any], streams: Sequence[int]) -> None:
        """Have it be what `request` says, see wherry_vm.protocol, with these streams."""
        words = {
            "op": request["op"],
            "argv": [str(word) for word in request["argv"]],
            "environment": request["environment"],
            "terminals": [bool(each) for each in request["terminals"]],
        }
        rights = (sockets.SOL_SOCKET, sockets.SCM_RIGHTS, _STREAMS.pack(*streams))
        self._socket.sendmsg([b"\0"], [rights])
        self._socket.sendall(dump_json(words).encode())
        self._socket.shutdown(sockets.SHUT_WR)

    def hear(self) -> int | None:
        """The code with which it is about to end; None where it ends without having said so,
        or has become another program."""
        try:
            said = self._socket.recv(_CODE.size)
        except ConnectionResetError:  # it has not even read all that it was told
            return None
        return _CODE.unpack(said)[0] if said else None

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        if self._ended is None:
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            self._ended = code if code >= 0 else 128 - code
        return self._ended

    def kill(self) -> None:
        """See that it ends."""
        if self._ended is None:
            os.kill(self.pid, signals.SIGKILL)
        self.wait()

    def close(self) -> None:
        """Let it end where it has not been told what it is."""
        self._socket.close()


class Rehearsal(Command):
    """What stands for a command where its server rehearses: says a line, and is about to end."""

    def __init__(self) -> None:
        self._socket, self._other = sockets.socketpair()
        self._ended = 0
        self.pid = os.getpid()

    def start(self, request: Mapping[str, Any], streams: Sequence[int]) -> None:
        super().start(request, streams)
        os.write(streams[1], b"\n")
        self._other.sendall(_CODE.pack(0))

    def close(self) -> None:
        super().close()
        self._other.close()


def _wait(socket: Any, *, is_ahead: bool) -> int:
    """Be told what to do, and do it; the exit code."""
    _close_all_but(socket)
    if is_ahead:
        rehearse_unless(socket, lambda: rehearse(carry_out))
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
    _close_all_but(socket)
    set_oom_score(0)
    enter(request["environment"])
    return carry_out(request["argv"]) if request["op"] == "run" else _program(request["argv"])


def _end(socket: Any, code: int) -> NoReturn:
    """Tell the code, and end: an emulated guest takes longer to give a process's memory back
    than all the way to the host."""
    # Whoever hears of the end may rely on it: no lock is held any more.
    _close_all_but(socket)
    try:
        socket.sendall(_CODE.pack(code & 0xFF))
    finally:
        os._exit(code)


def _close_all_but(socket: Any) -> None:
    """Close everything beyond the three streams but `socket`."""
    own = socket.fileno()
    os.closerange(3, own)
    os.closerange(own + 1, 1024)


def set_oom_score(adjustment: int) -> None:
    """Be killed sooner or later than others where memory runs out: proc(5), oom_score_adj."""
    descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    try:
        os.write(descriptor, b"%d" % adjustment)
    finally:
        os.close(descriptor)


def enter(environment: Mapping[str, str]) -> None:
    """Be where a command begins, in its environment."""
    os.chdir("/")
    os.environ.update(environment)
    time.tzset()


class _Shown(TextIOWrapper):
    """Output that a terminal will show."""

    def isatty(self) -> bool:
        return True


def carry_out(argv: Sequence[str], *, on_terminal: bool = False) -> int:
    """What `wherry *argv` does in a process of its own; its output may be for a terminal
    without being one."""
    signals.signal(signals.SIGINT, signals.default_int_handler)
    sys.argv = ["wherry", *argv]
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - as long as the process
    sys.stdout = (_Shown if on_terminal else TextIOWrapper)(
        open(1, "wb", closefd=False),  # noqa: SIM115
        line_buffering=on_terminal or os.isatty(1),
    )
    sys.stderr = open(  # noqa: SIM115
        2, "w", buffering=1, errors="backslashreplace", closefd=False
    )
    from wherry.cli.main import main

    try:
        code = main()
    except SystemExit as end:  # a signal's, as 128+n
        code = end.code if isinstance(end.code, int) else 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            pass  # nobody reads it
    return code


def _program(argv: list[str]) -> int:
    """Become another program; the exit code of a shell where there is none of that name."""
    signals.signal(signals.SIGPIPE, signals.SIG_DFL)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        return 127 if isinstance(error, FileNotFoundError) else 126
