"""`wherry unshare`: a command where a rootless container's files are one's own."""

from __future__ import annotations

import os

from wherry.backend import Command, execute
from wherry.cli.grammar import argument, command
from wherry.errors import CommandNotExecutable, CommandNotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.engine import Engine


@command(
    argument("command", nargs=-1, required=False, metavar="COMMAND"),
    usage="[COMMAND [ARG...]]",
    interspersed=False,
    failure=125,
    examples="""\
  $ wherry unshare rm -r build                         what a container's users have left
  $ wherry unshare chown -R 0:0 data                   0 is you, 1 the first of your subordinate ids
""",
)
def unshare(command: tuple[str, ...]) -> int:
    """Run a command in a user namespace with the ids of this user's containers"""
    words = command or (os.environ.get("SHELL") or "/bin/sh",)

    def action(engine: Engine) -> int:
        if not engine.runtime.is_rootless():
            raise UsageError("unshare is for users other than root: root has every file already")
        return int(engine.runtime.unshared(lambda: _run(words), mounts=True))

    return execute(Command(argv=unshare.argv(command=words), action=action, stdin=0))


def _run(words: tuple[str, ...]) -> int:
    """Run a command and wait for it; its exit code, as a shell has it."""
    import subprocess

    from wherry.lean import signals

    def hear() -> None:
        for number in of_terminal:
            signals.signal(number, signals.SIG_DFL)

    # Those of the terminal are for the command.
    of_terminal = (signals.SIGINT, signals.SIGQUIT)
    for number in of_terminal:
        signals.signal(number, signals.SIG_IGN)
    try:
        code = subprocess.run(words, check=False, preexec_fn=hear).returncode
    except FileNotFoundError as error:
        raise CommandNotFound(f'exec: "{words[0]}": executable file not found in $PATH') from error
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise CommandNotExecutable(f'exec: "{words[0]}": {reason}') from error
    return 128 - code if code < 0 else code
