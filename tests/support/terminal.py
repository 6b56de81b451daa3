"""Terminals around the command under test: a bare pty, and tmux as a real one."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
from typing import TYPE_CHECKING, Any

from support.waiting import Deadline, wait_readable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.cli import Cli


class Terminal:
    """A command on a pty of its own, as a person sits at it."""

    def __init__(
        self,
        wherry: Cli,
        *argv: str,
        rows: int = 24,
        columns: int = 80,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.screen = b""
        """Everything that was written to the terminal, with its control sequences."""
        self._read = 0
        self._master, slave = os.openpty()
        self.resize(rows, columns)
        self.attributes_before = self.attributes()

        # The child's session gets the pty as its controlling terminal, as a login does.
        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        other = wherry.account.uid != os.geteuid()
        if other:
            os.fchown(slave, wherry.account.uid, wherry.account.gid)
        self.process = subprocess.Popen(
            [*wherry.account.command, *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**wherry.environment, **(env or {})},
            cwd=wherry.directory,
            user=wherry.account.uid if other else None,
            group=wherry.account.gid if other else None,
            extra_groups=[] if other else None,
            preexec_fn=take_terminal,  # noqa: PLW1509
        )
        # Kept open: what is written last must not be lost with the last other holder.
        self._slave = slave

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, text: str | bytes) -> None:
        """Type `text`."""
        content = text.encode() if isinstance(text, str) else text
        while content:
            content = content[os.write(self._master, content) :]

    def expect(self, text: str | bytes, timeout: float = 60) -> bytes:
        """Wait until `text` appears after what was expected before; returns all up to its end."""
        wanted = text.encode() if isinstance(text, str) else text
        deadline = Deadline(timeout, f"{wanted!r} on the terminal")
        while (found := self.screen.find(wanted, self._read)) < 0:
            try:
                wait_readable(self._master, deadline)
            except TimeoutError as error:
                raise AssertionError(f"{error}; it shows {self.screen!r}") from None
            self.screen += os.read(self._master, 65536)
        start, self._read = self._read, found + len(wanted)
        return self.screen[start : self._read]

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size; whoever runs in it gets SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def attributes(self) -> list[Any]:
        """The line discipline's settings, as `stty` shows them."""
        return termios.tcgetattr(self._master)

    def wait(self, timeout: float = 60) -> int:
        """Wait until the command has ended; returns its exit code."""
        descriptor = os.pidfd_open(self.process.pid)
        try:
            deadline = Deadline(timeout, "the command to end")
            # Read on: a command that cannot write does not end.
            while not self._ended(descriptor, deadline):
                self.screen += os.read(self._master, 65536)
        except TimeoutError as error:
            raise AssertionError(f"{error}; the terminal shows {self.screen!r}") from None
        finally:
            os.close(descriptor)
        return self.process.wait()

    def close(self) -> None:
        if self._master < 0:
            return
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for descriptor in (self._slave, self._master):
            os.close(descriptor)
        self._slave = self._master = -1

    def _ended(self, process: int, deadline: Deadline) -> bool:
        """Whether the process ended; False when the terminal has something to read first."""
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.register(self._master, select.POLLIN)
        ready: list[int] = []
        while not ready:
            ready = [descriptor for descriptor, _ in poll.poll(deadline.left() * 1000)]
        return self._master not in ready


class Tmux:
    """A command inside tmux: what a person sees, cell by cell."""

    def __init__(self, wherry: Cli, *argv: str, rows: int = 24, columns: int = 80) -> None:
        self._wherry = wherry
        self._socket = f"{wherry.environment['XDG_RUNTIME_DIR']}/tmux"
        size = ["-x", str(columns), "-y", str(rows)]
        self._tmux("new-session", "-d", *size, *wherry.account.command, *argv)
        self._tmux("set-option", "-g", "remain-on-exit", "on")
        # In control mode tmux tells us when the screen changes, so that nobody has to look
        # again and again.
        self._control = wherry.spawn(
            ["tmux", "-S", self._socket, "-C", "attach"], stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> Tmux:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *keys: str) -> None:
        """Press keys, by tmux's names: "Enter", "C-c"; other words are typed."""
        self._tmux("send-keys", *keys)

    def resize(self, rows: int, columns: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def screen(self) -> str:
        """What the screen shows."""
        return self._tmux("capture-pane", "-p")

    def expect(self, text: str, timeout: float = 60) -> str:
        """Wait until the screen shows `text`; returns the screen."""
        assert self._control.stdout is not None
        deadline = Deadline(timeout, f"{text!r} in tmux")
        while text not in (screen := self.screen()):
            try:
                wait_readable(self._control.stdout.fileno(), deadline)
            except TimeoutError as error:
                raise AssertionError(f"{error}; it shows:\n{screen}") from None
            assert os.read(self._control.stdout.fileno(), 65536), f"tmux ended:\n{screen}"
        return screen

    def close(self) -> None:
        if self._control.returncode is None:
            self._tmux("kill-server")
            self._control.communicate(timeout=60)

    def _tmux(self, *argv: str) -> str:
        process = self._wherry.spawn(
            ["tmux", "-S", self._socket, "-f", "/dev/null", *argv], stdin=subprocess.DEVNULL
        )
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
        return output.decode()
