"""`wherry context`: docker's contexts, of which there is one, this user's own containers.

Tools ask for the context's name before they do anything else; there is no daemon
elsewhere that another context could lead to.
"""

from __future__ import annotations

from wherry.cli import common
from wherry.cli.grammar import argument, command, option
from wherry.errors import NotFound

DEFAULT = "default"


@command(
    common.FORMAT,
    option("-q", "--quiet", type=bool, help="Only show context names"),
    name="context ls",
)
def ls(format: str, quiet: bool) -> int:  # noqa: A002
    """List contexts"""
    from wherry.cli.tables import Table, print_rows

    row = {
        "Name": DEFAULT,
        "Current": True,
        "Description": "The containers of this user",
        "DockerEndpoint": "",
        "ContextType": "",
        "Error": "",
    }
    table = Table(
        columns=("Name", "Description", "DockerEndpoint", "Error"),
        titles={"DockerEndpoint": "DOCKER ENDPOINT", "ContextType": "TYPE"},
        quiet="Name",
    )
    shown = row if format or quiet else {**row, "Name": f"{DEFAULT} *"}
    print_rows([shown], table, template=format, quiet=quiet)
    return 0


@command(name="context show")
def show() -> int:
    """Print the name of the current context"""
    print(DEFAULT)
    return 0


@command(argument("context"), name="context use")
def use(context: str) -> int:
    """Set the current context"""
    _find(context)
    print(context)
    return 0


@command(
    common.DOCUMENT_FORMAT,
    argument("context", nargs=-1, required=False),
    name="context inspect",
)
def inspect(context: tuple[str, ...], format: str) -> int:  # noqa: A002
    """Display detailed information on one or more contexts"""
    from wherry.cli.inspect import print_found

    return print_found(context or (DEFAULT,), _find, format)


def _find(name: str) -> dict[str, object]:
    if name != DEFAULT:
        raise NotFound(f'context "{name}": context not found', hint=f'there is only "{DEFAULT}"')
    return {
        "Name": DEFAULT,
        "Metadata": {},
        "Endpoints": {"docker": {"Host": "", "SkipTLSVerify": False}},
        "TLSMaterial": {},
        "Storage": {"MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>"},
    }
