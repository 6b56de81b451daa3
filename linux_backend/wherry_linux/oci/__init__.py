"""The runtime's own command line, `wherry oci`: runc's words, for engines that drive a runtime.

session.py    what the options before the command set: the state directory, the log
commands.py   create, start, state, kill, delete, run, exec, …
events.py     what a container uses, as lines of JSON
shape.py      which keys a config.json has, and of what types
features.py   what the runtime can do here, as runtime-spec's features document
template.py   the config.json that `spec` writes
"""

from __future__ import annotations

from wherry.cli.grammar import HELP
from wherry.errors import Unsupported, UsageError, WherryError
from wherry_linux.oci.session import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def main(words: Sequence[str], **options: Any) -> int:
    """Carry out `wherry oci OPTIONS WORDS…`; the exit code. Errors go to the log as well."""
    from wherry_linux.oci import commands

    session = Session(**options)
    name, *rest = words
    declaration = commands.COMMANDS.get(name)
    if name in ("checkpoint", "restore"):
        raise Unsupported(f"wherry oci {name}: containers are not written to files")
    if declaration is None:
        raise UsageError(
            f"unknown command: wherry oci {name}",
            hint=f"the commands are {', '.join(sorted(commands.COMMANDS))}",
        )
    try:
        values = declaration.parse(rest, f"oci {name}")
        if HELP in values:
            _print_help(name)
            return 0
        return declaration.function(session, **values)
    except OSError as error:
        session.log("error", f"{error.strerror}: {error.filename}")
        raise
    except WherryError as error:
        # A runtime's exit code says of the program only what `run` and `exec` pass on.
        error.exit_code = 255 if name == "exec" else 1
        session.log("error", str(error))
        raise


def _print_help(name: str) -> None:
    import click

    from wherry.cli.clickify import click_command
    from wherry_linux.oci import commands

    made = click_command(commands.COMMANDS[name], f"wherry oci {name}")
    with click.Context(made, info_name=f"wherry oci {name}") as context:
        print(made.get_help(context))
