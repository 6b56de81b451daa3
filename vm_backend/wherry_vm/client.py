"""A command on the host while the guest carries it out: its streams, terminal and signals."""

from __future__ import annotations

import os

from wherry.container.wire import CONTROL, STDERR, STDIN, STDOUT, Parser, control, frame
from wherry.errors import MachineError, WherryError, as_ours, from_json
from wherry.files import write_all
from wherry.lean import load_json
from wherry_vm.protocol import CHUNK, NONSENSE, WINDOW
from wherry_vm.surroundings import proxies
from wherry_vm.terminal import terminal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wherry_vm.link import Link
    from wherry_vm.terminal import Console

# What a command reads of its environment that is not the host's own business.
_ENVIRONMENT = (
    "COLORTERM", "COLUMNS", "DOCKER_CLI_HINTS", "DOCKER_DEFAULT_PLATFORM", "LINES", "NO_COLOR",
    "TERM", "WHERRY_DEBUG",
)  # fmt: skip

_PATIENCE = 4
"""How many times SIGINT or SIGTERM are passed on before the command is given up."""


class Client:
    """One command, carried out at the other end of `link`, which stays the caller's."""

    def __init__(
        self,
        link: Link,
        console: Console,
        argv: Sequence[str],
        *,
        stdin: Any = None,
        outputs: tuple[int, int] = (1, 2),
        operation: str = "run",
        brief: bool = False,
        answer: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        configuration: dict[str, str] | None = None,
    ) -> None:
        """`stdin` is what wherry.backend.Command says; `outputs` descriptors of ours.

        With the operation "program" `argv` are the words of another program than wherry.
        `brief` is what wherry.backend.Command says, `answer` and `configuration` are what
        wherry_vm.answers has.
        """
        self._operation = operation
        self._brief = brief
        self._answer = answer
        self._configuration = configuration or {}
        self._link = link
        self._console = console
        self._argv = tuple(argv)
        self._stdin = stdin
        stdout, stderr = outputs
        self._descriptors = {STDIN: 0, STDOUT: stdout, STDERR: stderr}
        # A command that reads nothing may still want to know whether somebody could type.
        from_terminal = stdin in (0, None) and _is_terminal(0)
        self._terminals = [from_terminal, _is_terminal(stdout), _is_terminal(stderr)]
        self._parser = Parser()
        self._interrupts = 0
        self._problem: WherryError | None = None
        # Why an output of ours takes no more, by its kind.
        self._lost: dict[int, OSError] = {}
        self._window = _Window()

    def run(self) -> int:
        """Carry it out; its exit code. Raises MachineError where the machine is lost."""
        with self._console.signals(self._pass_on, self._resize):
            self._link.send(control(self._request()))
            if self._stdin is None:
                return self._receive()
            if not self._terminals[0]:
                self._start_reading()
                return self._receive()
            with self._console.raw():
                self._start_reading()
                return self._receive()

    def _request(self) -> dict[str, Any]:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment["TZ"] = time_zone()
        environment.update(proxies.of_environment())
        return {
            "op": self._operation,
            "argv": list(self._argv),
            "environment": environment,
            "configuration": self._configuration,
            "stdin": self._stdin is not None,
            "terminals": self._terminals,
            "size": terminal_size(),
            "brief": self._brief,
        }

    # ---- to the guest ----

    def _start_reading(self) -> None:
        import _thread

        _thread.start_new_thread(self._read, ())

    def _read(self) -> None:
        """Standard input, as fast as the command takes it."""
        read = self._reader()
        try:
            while data := read(CHUNK):
                self._window.take(len(data))
                self._link.send(frame(STDIN, data))
        except OSError:
            pass  # a terminal that is gone has no more to say
        except Exception as error:
            # The command would wait for the rest for ever.
            self._problem = as_ours(error)
            self._link.abandon()
            return
        self._link.send(control({"op": "eof"}))

    def _reader(self) -> Callable[[int], bytes]:
        if self._stdin == 0:
            return lambda size: os.read(0, size)
        if isinstance(self._stdin, bytes):
            from io import BytesIO

            return BytesIO(self._stdin).read
        read: Callable[[int], bytes] = self._stdin.read
        return read

    def _pass_on(self, name: str) -> None:
        if name in ("SIGINT", "SIGTERM"):
            self._interrupts += 1
            if self._interrupts >= _PATIENCE:
                # Whoever is asked has not answered: the connection's end is the last word.
                self._link.abandon()
        self._link.send(control({"op": "signal", "name": name}))

    def _resize(self) -> None:
        self._link.send(control({"op": "resize", "size": terminal_size()}))

    # ---- from the guest ----

    def _receive(self) -> int:
        """The command's exit code. Raises MachineError, and what kept it from running."""
        while data := self._link.receive():
            try:
                frames = self._parser.feed(data)
                for kind, payload in frames:
                    code = self._hear(kind, payload)
                    if code is not None:
                        return code
            except NONSENSE as error:
                raise MachineError(f"the machine's guest makes no sense: {error!r}") from error
        if self._problem is not None:
            raise self._problem
        if self._interrupts:
            raise KeyboardInterrupt
        raise MachineError(
            "the connection to the machine broke off",
            hint="`wherry machine logs` tells what happened; what runs in containers may go on",
        )

    def _hear(self, kind: int, payload: bytes) -> int | None:
        """One frame; the exit code, where it is the last. Raises what is in NONSENSE."""
        if kind != CONTROL:
            self._write(kind, payload)
            return None
        message = load_json(payload)
        if "error" in message:
            raise from_json(message["error"])
        event = message.get("event")
        if event == "exit":
            return self._end(int(message["code"]))
        if event == "taken":
            self._window.give(int(message["bytes"]))
        elif event == "warning":
            # A terminal that is raw needs to be told of a line's beginning, too.
            end = "\r\n" if self._terminals[0] else "\n"
            write_all(2, f"wherry: {message['text']}{end}".encode())
        elif event == "ask" and self._answer is not None:
            answer = self._answer(message["question"])
            self._link.send(control({"op": "answer", "id": message["id"], "answer": answer}))
        return None

    def _write(self, kind: int, data: bytes) -> None:
        """Write to an output; where it takes nothing the command learns it as of a pipe."""
        if kind in self._lost:
            return
        try:
            write_all(self._descriptors[kind], data)
        except OSError as error:
            if self._terminals[kind]:
                raise
            self._lost[kind] = error
            self._link.send(control({"op": "closed", "output": kind}))

    def _end(self, code: int) -> int:
        """The exit code. Raises what has kept us from writing, where the guest cannot tell."""
        for error in self._lost.values():
            if not (code and isinstance(error, BrokenPipeError)):
                raise error
        return code


class _Window:
    """How much of standard input may be on its way: see wherry_vm.protocol."""

    def __init__(self) -> None:
        self._left = WINDOW
        self._changed: Any = None

    def take(self, size: int) -> None:
        """Wait until there is room, and take `size` of it."""
        if self._changed is None:
            import threading

            self._changed = threading.Condition()
        with self._changed:
            while self._left <= 0:
                self._changed.wait()
            self._left -= size

    def give(self, size: int) -> None:
        """Room that `take` took."""
        with self._changed:
            self._left += size
            self._changed.notify()


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def time_zone() -> str:
    """This host's offset from UTC now, in the form of tzset(3); what TZ says goes first."""
    if text := os.environ.get("TZ", "").removeprefix(":"):
        return text
    import time

    seconds = time.localtime().tm_gmtoff
    sign, minutes = "-" if seconds >= 0 else "+", abs(seconds) // 60
    name = f"{'+' if seconds >= 0 else '-'}{minutes // 60:02}{minutes % 60:02}"
    return f"<{name}>{sign}{minutes // 60:02}:{minutes % 60:02}"
