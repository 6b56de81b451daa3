"""`wherry secret`: contents that containers are given by name."""

from __future__ import annotations

import sys

from wherry.backend import Command, execute
from wherry.cli import common
from wherry.cli.each import complain
from wherry.cli.grammar import argument, command, option
from wherry.cli.options import read_label
from wherry.errors import UsageError, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wherry.engine import Engine
    from wherry.errors import CorruptState


@command(
    option("-l", "--label", multiple=True, metavar="list", convert=read_label, help="Labels"),
    option("--replace", type=bool, help="Give an existing secret another content"),
    argument("secret"),
    argument("file"),
    name="secret create",
    usage="[OPTIONS] SECRET FILE|-",
    examples="""\
  $ wherry secret create token token.txt
  $ echo "$TOKEN" | wherry secret create token -
  $ wherry run --secret token debian cat /run/secrets/token
""",
)
def create(secret: str, file: str, label: tuple[str, ...], replace: bool) -> int:
    """Keep the content of a file or of standard input as a secret"""
    # Read where the command was typed; what it holds is never on a command line.
    content = _read(file)

    def action(_engine: Engine) -> int:
        from wherry.secrets import SecretStore

        labels = {name: rest for name, _, rest in (text.partition("=") for text in label)}
        print(SecretStore().create(secret, content, labels=labels, replace=replace).id)
        return 0

    argv = create.argv(secret=secret, file="-", label=label, replace=replace)
    return execute(Command(argv=argv, action=action, stdin=content))


def _read(file: str) -> bytes:
    from wherry.secrets import LARGEST

    if file == "-":
        return sys.stdin.buffer.read(LARGEST + 1)
    try:
        with open(file, "rb") as opened:
            return opened.read(LARGEST + 1)
    except OSError as error:
        raise WherryError(f"cannot read secret from {file}: {error.strerror}") from error


@command(
    common.DOCUMENT_FORMAT,
    argument("secret", nargs=-1),
    name="secret inspect",
)
def inspect(secret: tuple[str, ...], format: str) -> int:  # noqa: A002
    """Show what is known of secrets, but not what they hold"""

    def action(_: Engine) -> int:
        from wherry.cli.inspect import print_found
        from wherry.secrets import SecretStore

        store = SecretStore()
        return print_found(secret, lambda name: store.find(name).inspect(), format)

    return execute(Command(argv=inspect.argv(secret=secret, format=format), action=action))


@command(
    common.FORMAT,
    option("-q", "--quiet", type=bool, help="Only display secret IDs"),
    name="secret ls",
)
def ls(format: str, quiet: bool) -> int:  # noqa: A002
    """List secrets"""

    def action(_: Engine) -> int:
        from wherry.cli.tables import Table, label_fields, print_rows
        from wherry.secrets import SecretStore

        table = Table(
            columns=("ID", "Name", "Driver", "Created", "Updated"),
            titles={"Created": "CREATED", "Updated": "UPDATED"},
            quiet="ID",
        )
        damaged: list[CorruptState] = []
        rows = [
            {
                "ID": each.id,
                "Name": each.name,
                "Driver": "file",
                "Created": each.created,
                "Updated": each.updated,
                **label_fields(each.labels),
            }
            for each in SecretStore().secrets(damaged)
        ]
        print_rows(rows, table, template=format, quiet=quiet)
        for error in damaged:
            complain(error.message, error.hint)
        return 0

    return execute(Command(argv=ls.argv(format=format, quiet=quiet), action=action))


@command(
    option("-a", "--all", type=bool, help="Remove every secret"),
    option("-i", "--ignore", type=bool, help="A missing secret is no failure"),
    argument("secret", nargs=-1, required=False),
    name="secret rm",
)
def rm(secret: tuple[str, ...], all: bool, ignore: bool) -> int:  # noqa: A002
    """Remove one or more secrets"""
    if all == bool(secret):
        raise UsageError("'wherry secret rm' takes names or --all")

    def action(_: Engine) -> int:
        from wherry.cli.each import for_each
        from wherry.errors import NotFound
        from wherry.secrets import SecretStore

        store = SecretStore()

        def remove(name: str) -> None:
            try:
                store.remove(name)
            except NotFound:
                if not ignore:
                    raise

        return for_each(store.names() if all else secret, remove)

    return execute(Command(argv=rm.argv(secret=secret, all=all, ignore=ignore), action=action))
