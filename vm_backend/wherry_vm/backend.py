"""The backend that says a command again, to the wherry inside the machine."""

from __future__ import annotations

import sys

from wherry.errors import Unsupported
from wherry.files import Draft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wherry.backend import Command
    from wherry.engine import Engine

    Placed = Callable[[Callable[[str], str]], Sequence[str]]


class VmBackend:
    """Carries commands out in the machine that WHERRY_MACHINE names, or the default one."""

    def execute(self, command: Command) -> int:
        _flush()
        forwarder = Forwarder(command)
        if command.elsewhere is not None:
            return command.elsewhere(forwarder.forward)
        if not command.output:
            return forwarder.forward(command.placed or command.argv, stdin=command.stdin)
        draft = Draft(command.output)
        with draft as stdout:
            code = forwarder.forward(command.argv, stdin=command.stdin, stdout=stdout)
            if code:
                draft.discard()
            return code

    def engine(self) -> Engine:
        raise Unsupported(
            "the engine is inside the machine",
            hint="from Python, too, commands are given: subprocess.run(['wherry', …])",
        )


class Forwarder:
    """Has words carried out in the machine, on behalf of one command."""

    def __init__(self, command: Command) -> None:
        from wherry_vm.answers import configuration
        from wherry_vm.machines import current, load_or_create

        self._command = command
        self._machine = load_or_create(current())
        self._configuration = configuration()

    def forward(
        self, argv: Sequence[str] | Placed, *, stdin: Any = None, stdout: int = 1, stderr: int = 2
    ) -> int:
        """The exit code of `wherry *argv` in the guest.

        `argv` and `stdin` are as in wherry.backend.Command, the others descriptors of this
        process. Raises UsageError for a path that is in no share, before anything runs.
        """
        from wherry_vm.starter import join, tell

        # What cannot be is told before a machine is started for it.
        self._words(argv)
        link = join(self._machine, "command", tell, _load_client)
        try:
            from wherry_vm.answers import answer
            from wherry_vm.client import Client
            from wherry_vm.terminal import open_console

            client = Client(
                link,
                open_console(),
                # One that ran already may share other directories than it would from now on.
                self._words(argv),
                stdin=stdin,
                outputs=(stdout, stderr),
                brief=self._command.brief,
                answer=lambda question: answer(self._command, question, stdin),
                configuration=self._configuration,
            )
            return client.run()
        finally:
            link.close()

    def _words(self, argv: Sequence[str] | Placed) -> Sequence[str]:
        if not callable(argv):
            return argv
        from wherry_vm.shares.finding import finder

        return argv(finder(self._machine))


def _flush() -> None:
    """Let what this process has printed itself go before what the guest says."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _load_client() -> None:
    """Load what `forward` needs once the machine has been joined."""
    from wherry_vm import client  # noqa: F401
    from wherry_vm.terminal import open_console

    open_console()


def load() -> VmBackend:
    """The backend, for wherry.backend."""
    return VmBackend()
