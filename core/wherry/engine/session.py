"""A command that stays with a container: its streams, its terminal, its signals.

Serves `run`, `start -a` and `attach`, which differ only in how the connection to the
monitor comes about.
"""

from __future__ import annotations

import os

from wherry.container.wire import CONTROL, STDERR, STDIN, STDOUT, Connection, control, frame
from wherry.errors import Conflict, WherryError, from_json
from wherry.files import write_all
from wherry.lean import load_json, posix, select, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from wherry.container.store import Container

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"

# docker's CLI passes on whatever else can be caught.
NOT_PROXIED = ("SIGCHLD", "SIGPIPE", "SIGURG", "SIGKILL", "SIGSTOP", "SIGWINCH", "SIGTTIN",
               "SIGTTOU", "SIGTSTP", "SIGCONT", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL",
               "SIGABRT", "SIGXFSZ", "SIGXCPU", "SIGPROF", "SIGVTALRM", "SIGIO")  # fmt: skip

# What ends a command that passes nothing on, and what tells of a terminal's size.
_OURS = ("SIGWINCH", "SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")


class Detached(Exception):
    """The user typed the detach keys."""


class Session:
    """One foreground stay with one container."""

    def __init__(
        self,
        container: Container,
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        detach_keys: str = "",
        sig_proxy: bool = True,
        stdio: tuple[int, int, int] = (0, 1, 2),
        signals_too: bool = True,
    ) -> None:
        """`stdio` are descriptors of this process; `signals_too` takes over its signals."""
        self.container = container
        self.stdin, self.stdout, self.stderr = stdio
        self.signals_too = signals_too
        self.has_terminal = bool(container.body.get("Tty"))
        if container.passes_streams():
            stdin = stdout = stderr = False
        self.streams = {
            "stdin": stdin,
            "stdout": stdout,
            "stderr": stderr and not self.has_terminal,
        }
        self.sig_proxy = sig_proxy
        self.keys = DetachKeys(parse_keys(detach_keys or DEFAULT_DETACH_KEYS))
        self.connection: Connection | None = None
        self.exit: dict[str, Any] | None = None
        self.interrupts = 0
        self._to_send = bytearray()
        self._stdin_open = stdin
        self._wakeup = -1

    def attach_options(self) -> dict[str, Any]:
        """What the monitor is asked for."""
        return {name: True for name, wanted in self.streams.items() if wanted}

    def run(self, connect: Callable[[dict[str, Any]], Connection]) -> int:
        """Stay with the container until it ends or the user detaches; the exit code.

        `connect(options)` starts the container or joins it, and gives the connection.
        """
        if not self.signals_too:
            return self._connected(connect)
        with _Signals(self) as wakeup:
            self._wakeup = wakeup
            return self._connected(connect)

    def _connected(self, connect: Callable[[dict[str, Any]], Connection]) -> int:
        self.connection = connect(self.attach_options())
        try:
            return self._stay()
        finally:
            self.connection.close()

    def _stay(self) -> int:
        raw = self.has_terminal and self.streams["stdin"] and os.isatty(self.stdin)
        if raw:
            from wherry.terminal import RawMode

            with RawMode(self.stdin):
                self._resize()
                code = self._loop()
        else:
            if self.has_terminal and os.isatty(self.stdout):
                self._resize()
            code = self._loop()
        return code

    def _loop(self) -> int:
        assert self.connection is not None
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        if self._wakeup >= 0:
            poll.register(self._wakeup, select.POLLIN)
        if self._stdin_open:
            poll.register(self.stdin, select.POLLIN)
        posix.set_blocking(self.connection.fileno(), True)
        try:
            # What came together with the greeting does not wake a poll.
            if self.connection.pending():
                self._handle_connection(select.POLLIN)
            self._update(poll)  # the terminal's size waits to be sent
            while self.exit is None:
                for descriptor, mask in poll.poll():
                    if descriptor == self._wakeup:
                        self._handle_signals()
                    elif descriptor == self.connection.fileno():
                        self._handle_connection(mask)
                    elif self._stdin_open:
                        self._read_stdin(poll)
                self._update(poll)
        except Detached:
            self.container.event("detach")
            return 0
        if "error" in self.exit:
            raise from_json(self.exit["error"])
        return int(self.exit["code"])

    def _update(self, poll: Any) -> None:
        """Read no more from stdin than the container takes."""
        assert self.connection is not None
        poll.modify(
            self.connection.fileno(),
            select.POLLIN | (select.POLLOUT if self._to_send else 0),
        )
        if self._stdin_open:
            poll.modify(self.stdin, 0 if self._to_send else select.POLLIN)

    def _handle_connection(self, mask: int) -> None:
        assert self.connection is not None
        if mask & select.POLLOUT and self._to_send:
            sent = self.connection.send_some(self._to_send)
            del self._to_send[:sent]
        if not mask & (select.POLLIN | select.POLLHUP | select.POLLERR):
            return
        while True:
            received = self.connection.receive()
            if received is None:
                self.exit = self.exit or self._ended_without_word()
                return
            kind, payload = received
            if kind == STDOUT:
                write_all(self.stdout, payload)
            elif kind == STDERR:
                write_all(self.stderr, payload)
            elif kind == CONTROL:
                message = load_json(payload)
                if message.get("event") == "exit" or "error" in message:
                    self.exit = message
                    return
            if not self.connection.pending():
                return

    def _ended_without_word(self) -> dict[str, Any]:
        """The connection is gone, and with it the container, unless we were too slow."""
        try:
            Connection.open(self.container.id).close()
        except Conflict:
            # Whoever killed the monitor has ended the container too.
            return {"event": "exit", "code": 137}
        raise WherryError(
            f"lost container {self.container.name}: its output was not read for too long",
            hint=f"it goes on: wherry attach {self.container.name}",
        )

    def _read_stdin(self, poll: Any) -> None:
        try:
            data = os.read(self.stdin, 1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._stdin_open = False
            poll.unregister(self.stdin)
            if not self.has_terminal:
                self._to_send += control({"op": "eof"})
            return
        if self.has_terminal:
            data = self.keys.filter(data)
            if self.keys.typed:
                if data:
                    self._to_send += frame(STDIN, data)
                self._send_rest()
                raise Detached
        if data:
            self._to_send += frame(STDIN, data)

    def _send_rest(self) -> None:
        assert self.connection is not None
        self.connection.send(bytes(self._to_send))
        self._to_send.clear()

    def _handle_signals(self) -> None:
        for number in os.read(self._wakeup, 512):
            if number == signals.SIGWINCH:
                self._resize()
            elif self.sig_proxy:
                self._pass_on(number)
            elif number in (signals.SIGINT, signals.SIGTERM, signals.SIGHUP, signals.SIGQUIT):
                raise KeyboardInterrupt

    def _pass_on(self, number: int) -> None:
        if number in (signals.SIGINT, signals.SIGTERM):
            self.interrupts += 1
            if self.interrupts >= 3:
                raise WherryError(
                    f"got {self.interrupts} SIGTERM/SIGINTs, forcefully exiting",
                    hint=f"the container goes on: wherry kill {self.container.name}",
                )
        try:
            connection = Connection.open(self.container.id)
        except Conflict:
            return  # it is ending already
        connection.send(control({"op": "kill", "signal": number}))
        connection.close()

    def _resize(self) -> None:
        """Give the container's terminal the size of ours."""
        if not self.has_terminal or self.connection is None:
            return
        for descriptor in (self.stdout, self.stdin, self.stderr):
            try:
                columns, rows = os.get_terminal_size(descriptor)
            except OSError:
                continue
            self._to_send += control({"op": "resize", "rows": rows, "columns": columns})
            return


class _Signals:
    """Signals as bytes in a pipe while a session lasts."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._old: dict[int, Any] = {}

    def __enter__(self) -> int:
        read, write = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        self._pipe = (read, write)
        self._old_wakeup = signals.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._old = take_signals(None if self._session.sig_proxy else _OURS)
        return int(read)

    def __exit__(self, *_: object) -> None:
        signals.set_wakeup_fd(self._old_wakeup)
        give_signals_back(self._old)
        for descriptor in self._pipe:
            os.close(descriptor)


def take_signals(only: Sequence[str] | None = None) -> dict[int, Any]:
    """Have signals do nothing but wake (`set_wakeup_fd`); the handlers they had.

    All that are passed on to containers, and SIGWINCH, or those of them in `only`; never
    one that is ignored, as under nohup(1).
    """
    left_alone = {getattr(signals, name, None) for name in NOT_PROXIED} - {signals.SIGWINCH}
    wanted = range(1, signals.NSIG) if only is None else [getattr(signals, name) for name in only]
    old: dict[int, Any] = {}
    for number in wanted:
        if number in left_alone:
            continue
        try:
            if signals.getsignal(number) != signals.SIG_IGN:
                old[number] = signals.signal(number, _ignore)
        except (OSError, ValueError):
            continue
    return old


def give_signals_back(old: Mapping[int, Any]) -> None:
    """Undo `take_signals`."""
    for number, handler in old.items():
        signals.signal(number, handler if handler is not None else signals.SIG_DFL)


def _ignore(number: int, where: object) -> None:
    """Only so that the wakeup pipe hears of the signal."""


class DetachKeys:
    """Finds a sequence of keys in what is typed, and keeps it from the container.

    A beginning of the sequence is held back until the next key tells whether it is one.
    """

    def __init__(self, sequence: bytes) -> None:
        self.sequence = sequence
        self.typed = False
        self._held = 0

    def filter(self, data: bytes) -> bytes:
        """What of `data` goes to the container; sets `typed` at the end of the sequence."""
        if not self.sequence:
            return data
        passed = bytearray()
        for byte in data:
            if byte == self.sequence[self._held]:
                self._held += 1
                if self._held == len(self.sequence):
                    self.typed = True
                    return bytes(passed)
                continue
            if self._held:
                passed += self.sequence[: self._held]
                self._held = 1 if byte == self.sequence[0] else 0
                if self._held:
                    continue
            passed.append(byte)
        return bytes(passed)


def parse_keys(text: str) -> bytes:
    """docker's `--detach-keys`: characters and `ctrl-X`, comma-separated. Raises UsageError."""
    from wherry.errors import UsageError

    sequence = bytearray()
    for key in text.split(","):
        if len(key) == 1:
            sequence += key.encode()
        elif key.startswith("ctrl-") and len(key) == 6:
            letter = key[5].lower()
            if letter.isalpha() or letter in "@[\\]^_":
                sequence.append(ord(letter.upper()) & 0x1F)
                continue
            raise UsageError(f"unknown character: '{key}' in --detach-keys")
        else:
            raise UsageError(
                f"unknown key {key!r} in --detach-keys", hint="write it as in ctrl-p,ctrl-q"
            )
    return bytes(sequence)


def relay_terminal(master: int, *, stdin: bool, detach_keys: str = "") -> bool:
    """Join our terminal to another whose master side is `master`, until that one closes.

    For a process that no monitor looks after (`exec -t`). True where the user has typed the
    detach keys, and so left it.
    """
    keys = DetachKeys(parse_keys(detach_keys or DEFAULT_DETACH_KEYS))
    if not (stdin and os.isatty(0)):
        return _relay(master, stdin, keys)
    from wherry.terminal import RawMode

    ending = (signals.SIGTERM, signals.SIGHUP, signals.SIGINT, signals.SIGQUIT)
    previous = {number: signals.signal(number, _leave) for number in ending}
    try:
        with RawMode(0):
            return _relay(master, stdin, keys)
    finally:
        for number, handler in previous.items():
            signals.signal(number, signals.SIG_DFL if handler is None else handler)


def _leave(number: int, _where: object) -> None:
    """Unwind, so that the terminal is restored; a shell shows 128 and the signal's number."""
    raise SystemExit(128 + number)


def _relay(master: int, stdin: bool, keys: DetachKeys) -> bool:
    from wherry.terminal import copy_size

    copy_size(master)
    previous = signals.signal(signals.SIGWINCH, lambda *_: copy_size(master))
    poll = select.poll()
    poll.register(master, select.POLLIN)
    if stdin:
        poll.register(0, select.POLLIN)
    try:
        while True:
            for descriptor, _ in poll.poll():
                try:
                    data = os.read(descriptor, 1 << 16)
                except OSError:
                    data = b""  # EIO: nobody has the terminal open any more
                if descriptor == master:
                    if not data:
                        return False
                    write_all(1, data)
                elif not data:
                    poll.unregister(0)
                else:
                    write_all(master, keys.filter(data))
                    if keys.typed:
                        return True
    finally:
        signals.signal(signals.SIGWINCH, previous)
