"""One command of the host's, from its request to its exit code."""

from __future__ import annotations

import os
import select
import termios

from wherry.container.wire import CONTROL, STDERR, STDIN, STDOUT, control, frame
from wherry.errors import MachineError, to_json
from wherry.lean import load_json, signals, sockets
from wherry_linux import console
from wherry_vm.guest.brief import answer
from wherry_vm.guest.command import Command, Rehearsal
from wherry_vm.guest.connection import Connection
from wherry_vm.guest.origin import Origin
from wherry_vm.guest.rehearsal import rehearse, rehearse_unless
from wherry_vm.guest.surroundings import with_proxies
from wherry_vm.protocol import CHUNK, ORIGINS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOST_UNSENT = 1 << 20
_REHEARSAL = {
    "op": "run", "argv": ["ps"], "environment": {}, "configuration": {}, "stdin": False,
    "terminals": [False, False, False],
}  # fmt: skip


def serve(connection: Connection) -> None:
    """Carry out the command that the other side of `connection` asks for, and let it go.

    Raises what Connection.finish does.
    """
    # It may be long until it asks: what does not depend on the request is done before.
    command = Command(is_ahead=connection.is_ahead)
    origin = Origin(os.environ.get("WHERRY_ORIGINS") or ORIGINS)
    try:
        if connection.is_ahead:
            rehearse_unless(connection, lambda: _rehearse(origin))
        _serve(connection, command, origin)
    finally:
        command.close()
        origin.close()
    connection.finish()


def _rehearse(origin: Origin) -> None:
    """Serve two commands that are none, to nobody."""
    _serve_nobody(_REHEARSAL, origin)
    rehearse(lambda argv: _serve_nobody({**_REHEARSAL, "argv": argv, "brief": True}, origin))


def _serve_nobody(request: dict[str, Any], origin: Origin) -> None:
    ours, theirs = sockets.socketpair()
    command = Rehearsal()
    try:
        ours.sendall(control(request))
        _serve(Connection(theirs.fileno()), command, origin)
    finally:
        for each in (ours, theirs, command):
            each.close()


def _serve(connection: Connection, command: Command, origin: Origin) -> None:
    if frames := connection.first():
        try:
            request = _request(frames.pop(0), origin)
            if request.get("brief"):
                answer(connection, request, frames)
                return
            streams = _start(command, request)
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = MachineError(f"the guest could not start the command: {error}")
            connection.send_all(control({"error": to_json(problem)}))
            return
        try:
            Server(connection, streams, origin, command).run(frames)
        finally:
            streams.close()


def _request(asked: tuple[int, bytes], origin: Origin) -> dict[str, Any]:
    """What is asked for, with the environment that it has here."""
    kind, payload = asked
    request: dict[str, Any] = load_json(payload) if kind == CONTROL else {}
    if request.get("op") not in ("run", "program"):
        raise ValueError(f"a request that is none: {payload[:80]!r}")
    environment = with_proxies(request.get("environment", {}))
    if request["op"] == "run":
        environment.update(origin.environment(request.get("configuration", {})))
    request["environment"] = {str(name): str(text) for name, text in environment.items()}
    return request


def _start(command: Command, request: dict[str, Any]) -> Streams:
    """Have `command` be what is asked for; its streams."""
    streams = Streams(request)
    command.start(request, streams.child)
    streams.close_child()
    return streams


class Streams:
    """The command's standard streams: pipes, or one terminal for those that are the user's.

    `child` are the command's ends of 0, 1 and 2. Ours are `stdin`, -1 where it reads none,
    and `outputs`, each with the kind of frame that its bytes become; what a terminal shows
    is STDIN where neither output of the user's is a terminal.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        terminals = [bool(each) for each in request["terminals"]]
        reads = bool(request["stdin"])
        self.stdin = self.master = self.slave = -1
        self.outputs: dict[int, int] = {}
        self._ours: set[int] = set()
        self.types = reads and terminals[0]
        if any(terminals):
            self.master, self.slave = os.openpty()
            self._ours.add(self.master)
            set_size(self.slave, request.get("size"))
            if not self.types:
                # The user's own terminal, which is not raw then, ends lines itself.
                _no_output_processing(self.slave)
            shown = STDOUT if terminals[1] else STDERR if terminals[2] else STDIN
            self.outputs[self.master] = shown
        self.child = (
            self._input(reads, terminals[0]),
            self._output(STDOUT, terminals[1]),
            self._output(STDERR, terminals[2]),
        )

    def _input(self, reads: bool, on_terminal: bool) -> int:
        """The command's end of its input."""
        if on_terminal:
            self.stdin = self.master if reads else -1
            return self.slave
        if not reads:
            return os.open(os.devnull, os.O_RDONLY)
        end, self.stdin = os.pipe()
        self._ours.add(self.stdin)
        return end

    def _output(self, kind: int, on_terminal: bool) -> int:
        """The command's end of an output."""
        if on_terminal:
            return self.slave
        ours, end = os.pipe()
        self._ours.add(ours)
        self.outputs[ours] = kind
        return end

    def close_child(self) -> None:
        """Close the command's ends here."""
        for descriptor in {*self.child, self.slave} - {-1}:
            os.close(descriptor)

    def close_input(self) -> None:
        """Let the command find the end of its input."""
        self._ours.remove(self.stdin)
        os.close(self.stdin)
        self.stdin = -1

    def close_output(self, descriptor: int) -> None:
        """Let the command find that nobody reads what it writes there."""
        self._ours.remove(descriptor)
        os.close(descriptor)

    def close(self) -> None:
        """Close our ends."""
        for descriptor in self._ours:
            os.close(descriptor)


class Server:
    """Carries streams and signals between a running command and the host."""

    def __init__(
        self,
        connection: Connection,
        streams: Streams,
        origin: Origin,
        command: Command,
    ) -> None:
        self._connection = connection
        self._streams = streams
        self._questions = origin.questions
        self._command = command
        self._end = os.pidfd_open(command.pid)
        self._outputs = streams.outputs
        self._input = bytearray()
        self._input_ends = False
        self._unsent = bytearray()
        self._poll = select.poll()

    def run(self, frames: list[tuple[int, bytes]]) -> None:
        """Until the host knows how the command has ended and it has, or is gone."""
        self._connection.set_blocking(False)
        for descriptor in {*self._outputs, self._streams.stdin} - {-1}:
            os.set_blocking(descriptor, False)
        self._poll.register(self._end, select.POLLIN)
        self._poll.register(self._command, select.POLLIN)
        self._poll.register(self._questions, select.POLLIN)
        self._take(frames)
        try:
            while (code := self._step()) is None:
                pass
            self._drain()
            self._connection.set_blocking(True)
            last = control({"event": "exit", "code": code})
            self._connection.send_all(bytes(self._unsent) + last)
            self._command.wait()
        except (BrokenPipeError, ConnectionResetError):
            # As if the host's own command had been killed.
            self._command.kill()
        except BaseException:
            self._command.kill()
            raise
        finally:
            os.close(self._end)

    def _step(self) -> int | None:
        """Wait for something to do, and do it; the exit code when the command has one."""
        self._watch()
        for descriptor, mask in self._poll.poll():
            if descriptor == self._end:
                return self._command.wait()
            if descriptor == self._command.fileno():
                code = self._command.hear()
                if code is not None:
                    return code
                self._poll.unregister(descriptor)
            if descriptor == self._connection.fileno():
                self._serve_connection(mask)
            elif descriptor == self._questions.fileno():
                if asked := self._questions.hear():
                    self._tell({"event": "ask", "id": asked[0], "question": asked[1]})
            elif descriptor == self._streams.stdin and mask & (select.POLLOUT | select.POLLERR):
                self._write_input()
            if descriptor in self._outputs and mask & (select.POLLIN | select.POLLHUP):
                self._read_output(descriptor)
        return None

    def _watch(self) -> None:
        """What each descriptor is waited for."""
        to_host = select.POLLOUT if self._unsent else 0
        self._poll.register(self._connection.fileno(), select.POLLIN | to_host)
        # No more is read from the command than the host takes.
        reading = select.POLLIN if len(self._unsent) < _MOST_UNSENT else 0
        for descriptor in {*self._outputs, self._streams.stdin} - {-1}:
            mask = reading if descriptor in self._outputs else 0
            if descriptor == self._streams.stdin and self._input:
                mask |= select.POLLOUT
            if mask:
                self._poll.register(descriptor, mask)
            else:
                # A pipe that has hung up would wake us even if nothing is asked.
                _unregister(self._poll, descriptor)

    def _tell(self, message: dict[str, Any]) -> None:
        self._unsent += control(message)

    # ---- from the host ----

    def _serve_connection(self, mask: int) -> None:
        if mask & select.POLLOUT:
            sent = self._connection.send(self._unsent)
            del self._unsent[:sent]
        if mask & (select.POLLIN | select.POLLHUP | select.POLLERR):
            self._take(self._connection.receive())

    def _take(self, frames: list[tuple[int, bytes]]) -> None:
        for kind, payload in frames:
            if kind == STDIN:
                self._input += payload
            elif kind == CONTROL:
                self._obey(load_json(payload))

    def _obey(self, message: dict[str, Any]) -> None:
        operation = message.get("op")
        if operation == "eof":
            self._input_ends = True
            if self._streams.types:
                self._input += b"\x04"
            elif not self._input:
                self._close_input()
        elif operation == "signal":
            name = str(message.get("name"))
            number = getattr(signals, name, None)
            if name.startswith("SIG") and name[3:].isalnum() and isinstance(number, int):
                os.kill(self._command.pid, number)
        elif operation == "resize" and self._streams.master >= 0:
            set_size(self._streams.master, message.get("size"))
        elif operation == "answer":
            self._questions.answer(message)
        elif operation == "closed":
            self._close_output(message.get("output"))

    def _write_input(self) -> None:
        try:
            written = os.write(self._streams.stdin, self._input[:CHUNK])
        except BlockingIOError:
            return
        except OSError:  # nobody reads it any more: as lost as in a pipe that is closed
            written = len(self._input)
        del self._input[:written]
        self._tell({"event": "taken", "bytes": written})
        if self._input_ends and not self._input and not self._streams.types:
            self._close_input()

    def _close_input(self) -> None:
        if self._streams.stdin >= 0:
            _unregister(self._poll, self._streams.stdin)
            self._streams.close_input()

    # ---- from the command ----

    def _read_output(self, descriptor: int) -> bool:
        """Take what there is of an output; False when there is nothing."""
        try:
            data = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: a terminal that nobody has open
            data = b""
        if not data:
            del self._outputs[descriptor]
            if descriptor != self._streams.stdin:
                _unregister(self._poll, descriptor)
            return False
        self._unsent += frame(self._outputs[descriptor], data)
        return True

    def _close_output(self, kind: Any) -> None:
        """Let the command find that nobody reads an output of its."""
        for descriptor, each in tuple(self._outputs.items()):
            if each == kind and descriptor != self._streams.master:
                del self._outputs[descriptor]
                _unregister(self._poll, descriptor)
                self._streams.close_output(descriptor)

    def _drain(self) -> None:
        """What the command had written when it ended."""
        for descriptor in tuple(self._outputs):
            while self._read_output(descriptor):
                pass


def set_size(terminal: int, size: Any) -> None:
    """Give a terminal the `size` [rows, columns] of the user's; without one, leave it."""
    if isinstance(size, list) and len(size) == 2:
        rows, columns = (max(0, min(int(each), 65535)) for each in size)
        console.set_size(terminal, rows, columns)


def _no_output_processing(terminal: int) -> None:
    modes = termios.tcgetattr(terminal)
    modes[1] &= ~termios.OPOST
    termios.tcsetattr(terminal, termios.TCSANOW, modes)


def _unregister(poll: select.poll, descriptor: int) -> None:
    try:
        poll.unregister(descriptor)
    except KeyError:
        pass
