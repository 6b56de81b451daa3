"""`wherry inspect`: everything about an object, as docker writes it."""

from __future__ import annotations

from wherry.backend import Command, execute
from wherry.cli import common
from wherry.cli.each import complain
from wherry.cli.grammar import argument, command, option
from wherry.container.mount import is_name
from wherry.errors import NotFound, UsageError, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from wherry.engine import Engine

    Find = Callable[[str], dict[str, Any]]

_TYPES = ("container", "image", "network", "volume")
_SIZE = option("-s", "--size", type=bool, help="Display total file sizes if the type is container")


@command(
    common.DOCUMENT_FORMAT,
    _SIZE,
    option("--type", metavar="string", help="Only inspect objects of the given type"),
    argument("name", nargs=-1, metavar="NAME|ID"),
    examples="""\
  $ wherry inspect -f '{{.State.Status}}' web
  $ wherry inspect -f '{{json .Config.Env}}' debian    of an image, as JSON
""",
)  # fmt: skip
def inspect(
    name: tuple[str, ...],
    format: str,  # noqa: A002
    size: bool,
    type: str,  # noqa: A002
) -> int:
    """Return low-level information on objects"""
    if type and type not in _TYPES:
        raise UsageError(f'unknown type: "{type}": must be one of {", ".join(_TYPES)}')

    def action(engine: Engine) -> int:
        kinds: dict[str, Find] = {
            "container": lambda name: engine.containers.inspect(name, size=size),
            "image": lambda name: engine.images.inspect(name),  # noqa: PLW0108 - made when asked for
            "network": lambda name: engine.networks.inspect(name),  # noqa: PLW0108
            "volume": lambda name: _volume(engine, name),
        }
        if type:
            return print_found(name, kinds[type], format)
        return print_found(name, lambda each: _first_of(kinds.values(), each), format)

    argv = inspect.argv(name=name, format=format, size=size, type=type)
    return execute(Command(argv=argv, action=action, brief=True))


@command(
    common.DOCUMENT_FORMAT,
    _SIZE,
    argument("container", nargs=-1),
    name="container inspect",
)
def inspect_container(container: tuple[str, ...], format: str, size: bool) -> int:  # noqa: A002
    """Display detailed information on one or more containers"""
    argv = inspect_container.argv(container=container, format=format, size=size)
    return execute(
        Command(
            argv=argv,
            action=lambda engine: print_found(
                container, lambda name: engine.containers.inspect(name, size=size), format
            ),
        )
    )


def _volume(engine: Engine, name: str) -> dict[str, Any]:
    """A volume; a name that none can have is that of no volume."""
    if not is_name(name):
        raise NotFound(f"No such volume: {name}")
    return engine.volumes.inspect(name)


def _first_of(kinds: Iterable[Find], name: str) -> dict[str, Any]:
    """The object of any kind that has this name."""
    for find in kinds:
        try:
            return find(name)
        except NotFound:
            continue
    raise NotFound(f"No such object: {name}")


def print_found(names: Iterable[str], find: Find, template: str) -> int:
    """Print the documents of those that are there, then complain of the others."""
    from wherry.cli.inspection import print_documents

    documents: list[dict[str, Any]] = []
    errors: list[WherryError] = []
    for name in names:
        try:
            documents.append(find(name))
        except WherryError as error:
            errors.append(error)
    print_documents(documents, template or None)
    for each in errors:
        complain(each.message, each.hint)
    return 1 if errors else 0
