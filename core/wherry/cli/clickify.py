"""Our declarations as click commands: help pages, and completion in a shell.

click costs more than all the rest of a `wherry run`, so this module is imported only
when somebody asks for what it makes.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click
import click.shell_completion

from wherry.backend import Command, execute, load_machines
from wherry.cli import main as cli
from wherry.errors import WherryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wherry.cli.grammar import Declaration, Option
    from wherry.cli.main import Table
    from wherry.engine import Engine

    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType


class _Value(_ParamType):
    """A value that the declaration itself reads."""

    def __init__(self, each: Option) -> None:
        self.name = each.metavar or "string"
        self._each = each

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002
        ctx: click.Context | None,  # noqa: ARG002
    ) -> Any:
        if not isinstance(value, str):
            return value
        return self._each.read(value)

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[click.shell_completion.CompletionItem]:
        return [
            click.shell_completion.CompletionItem(each)
            for each in self._each.choices
            if each.startswith(incomplete)
        ]


class _Page(click.Command):
    """A command whose help page is laid out as docker's."""

    declaration: Declaration

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        declaration = self.declaration
        usage = f"{ctx.command_path} {declaration.usage}".strip()
        formatter.write(f"Usage:  {usage}\n\n{declaration.help}\n")
        if aliases := _aliases(declaration):
            formatter.write(f"\nAliases:\n  {', '.join(aliases)}\n")
        _write_options(formatter, declaration)
        if declaration.examples:
            formatter.write(f"\nExamples:\n{declaration.examples.rstrip()}\n")


class _Lazy(click.Group):
    """A level of the command table; a command is loaded when it is looked at."""

    def __init__(self, name: str, table: Table, path: tuple[str, ...]) -> None:
        super().__init__(name, params=list(_click_options(cli.wherry)) if not path else [])
        self._table = table
        self._path = path

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(self._table)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        entry = self._table.get(cmd_name)
        if entry is None:
            return None
        if isinstance(entry, str):
            return click_command(cli.load(entry), cmd_name)
        return _Lazy(cmd_name, entry, (*self._path, cmd_name))

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = "" if self._path else "[OPTIONS] "
        about = cli.GROUPS[" ".join(self._path)] if self._path else cli.wherry.summary
        formatter.write(f"Usage:  {ctx.command_path} {options}COMMAND\n\n{about}\n")
        for title, names in self._sections():
            formatter.write(f"\n{title}:\n")
            formatter.indent()
            with_summary = [(name, self._summary(name)) for name in names]
            formatter.write_dl(with_summary, col_spacing=4)
            formatter.dedent()
        if not self._path:
            _write_options(formatter, cli.wherry, title="Global Options")
        formatter.write(
            f"\nRun '{ctx.command_path} COMMAND --help' for more information on a command.\n"
        )

    def _sections(self) -> list[tuple[str, list[str]]]:
        names = [name for name in sorted(self._table) if self._is_listed(name)]
        if self._path:
            return [("Commands", names)]
        groups = [name for name in names if isinstance(self._table[name], dict)]
        others = [name for name in names if name not in groups and name not in cli.LISTED]
        return [
            ("Common Commands", list(cli.LISTED)),
            ("Management Commands", groups),
            ("Commands", others),
        ]

    def _is_listed(self, name: str) -> bool:
        """Whether `name` is a command's first name here, and not hidden."""
        entry = self._table[name]
        if isinstance(entry, dict):
            return True
        declaration = cli.load(entry)
        if declaration.hidden:
            return False
        spellings = [each for each, other in self._table.items() if other == entry]
        own = declaration.path[-1] if declaration.path[-1] in spellings else spellings[0]
        return name == (own if not self._path else _shortest(spellings, own))

    def _summary(self, name: str) -> str:
        entry = self._table[name]
        if isinstance(entry, str):
            return cli.load(entry).summary
        return cli.GROUPS[" ".join((*self._path, name))]


def _shortest(spellings: Sequence[str], own: str) -> str:
    """Of `ls`, `list` and `ps`, or `rm` and `remove`, what docker lists in a group."""
    return "ls" if "ls" in spellings else "rm" if "rm" in spellings else own


def click_command(declaration: Declaration, name: str) -> click.Command:
    """A click command that takes the same words to the same values."""
    page = _Page(
        name,
        params=[*_click_options(declaration), *_click_arguments(declaration)],
        callback=declaration.function,
        help=declaration.summary,
        context_settings={"allow_interspersed_args": declaration.interspersed},
    )
    page.declaration = declaration
    return page


def print_help(words: Sequence[str], *, to_stderr: bool = False) -> int:
    """Print the page of the command or group that `words` spell."""
    command: click.Command = _Lazy("wherry", cli.COMMANDS, ())
    context = click.Context(command, info_name="wherry", max_content_width=_width())
    for word in words:
        assert isinstance(command, click.Group)
        inner = command.get_command(context, word)
        assert inner is not None
        command = inner
        context = click.Context(command, info_name=word, parent=context)
    print(command.get_help(context), file=sys.stderr if to_stderr else sys.stdout)
    return 0


def complete() -> int:
    """Answer what the completion script in the user's shell asks."""
    from click.shell_completion import shell_complete

    group = _Lazy("wherry", cli.COMMANDS, ())
    return shell_complete(group, {}, "wherry", "_WHERRY_COMPLETE", os.environ["_WHERRY_COMPLETE"])


def completion_script(shell: str) -> str:
    """What a shell reads to complete our commands."""
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    group = _Lazy("wherry", cli.COMMANDS, ())
    return made(group, {}, "wherry", "_WHERRY_COMPLETE").source()


def _click_options(declaration: Declaration) -> list[click.Option]:
    return [_click_option(each) for each in declaration.options]


def _click_option(each: Option) -> click.Option:
    spellings = [each.name, *each.flags, *each.aliases]
    common: dict[str, Any] = {
        "default": each.default,
        "envvar": each.env or None,
        "help": each.help,
        "hidden": each.hidden,
    }
    if each.type is bool:
        return click.Option(spellings, is_flag=True, **common)
    if each.count:
        return click.Option(spellings, count=True, **common)
    if each.bare is not None:
        return click.Option(spellings, is_flag=False, flag_value=each.bare, **common)
    return click.Option(spellings, multiple=each.multiple, type=_Value(each), **common)


def _click_arguments(declaration: Declaration) -> list[click.Argument]:
    return [
        click.Argument(
            [each.name],
            nargs=each.nargs,
            required=each.required,
            default=None if each.required or each.nargs == -1 else "",
            metavar=each.metavar,
            type=click.UNPROCESSED,
            shell_complete=_complete_name,
        )
        for each in declaration.arguments
    ]


def _complete_name(
    context: click.Context,
    parameter: click.Parameter,
    incomplete: str,
) -> list[str]:
    """The containers, images or volumes whose names begin with what is typed."""
    kind = _NAMES.get(str(parameter.name))
    if kind is None:
        return []
    find, words = kind
    given = context.params.get(str(parameter.name)) or ()
    names: list[str] = []

    def action(engine: Engine) -> int:
        names.extend(find(engine))
        return 0

    def elsewhere(_: Callable[..., int]) -> int:
        # A key that is pressed starts no machine.
        names.extend(load_machines().ask_if_running(words))
        return 0

    try:
        execute(Command(argv=words, action=action, elsewhere=elsewhere))
    except (WherryError, OSError):
        return []  # a completion has nobody to complain to
    return [name for name in names if name.startswith(incomplete) and name not in given]


def _container_names(engine: Engine) -> list[str]:
    return [container.name for container in engine.container_store.all()]


def _image_names(engine: Engine) -> list[str]:
    return [name for image in engine.images.list() for name in image["RepoTags"]]


def _volume_names(engine: Engine) -> list[str]:
    return [volume["Name"] for volume in engine.volumes.list()]


_IMAGES = (_image_names, ("images", "--format", "{{.Repository}}:{{.Tag}}"))
_NAMES: dict[str, tuple[Callable[[Engine], list[str]], tuple[str, ...]]] = {
    "container": (_container_names, ("ps", "--all", "--format", "{{.Names}}")),
    "image": _IMAGES,
    "source": _IMAGES,
    "volume": (_volume_names, ("volume", "ls", "--quiet")),
}
"""What the words of an argument name, by the argument's own name: found here, or in a machine
by the lines that a command prints there."""


def _write_options(
    formatter: click.HelpFormatter, declaration: Declaration, title: str = "Options"
) -> None:
    shown = [each for each in declaration.options if not each.hidden]
    if not shown:
        return
    shown.sort(key=lambda each: each.long)
    formatter.write(f"\n{title}:\n")
    formatter.indent()
    formatter.write_dl(
        [(_spelling(each), each.help + _default(each)) for each in shown],
        col_max=40,
        col_spacing=3,
    )
    formatter.dedent()


def _spelling(each: Option) -> str:
    short = [flag for flag in each.flags if not flag.startswith("--")]
    first = f"{short[0]}, " if short else "    "
    optional = f"[={each.bare}]" if each.bare is not None else ""
    return f"{first}{each.long}{optional} {_metavar(each)}".rstrip()


def _metavar(each: Option) -> str:
    if each.metavar or each.is_flag:
        return each.metavar
    return "list" if each.multiple else {int: "int", float: "decimal"}.get(each.type, "string")


def _default(each: Option) -> str:
    if not each.default or each.multiple or each.convert:
        return ""
    shown = f'"{each.default}"' if isinstance(each.default, str) else str(each.default).lower()
    return f" (default {shown})"


def _aliases(declaration: Declaration) -> list[str]:
    """Every spelling of a command that has more than one, the longest first as docker does."""
    found: list[str] = []

    def walk(table: Table, above: str) -> None:
        for name, entry in table.items():
            if isinstance(entry, dict):
                walk(entry, f"{above} {name}")
            elif entry in own:
                found.append(f"{above} {name}")

    own = {entry for entry in _entries(cli.COMMANDS) if _names(entry, declaration)}
    walk(cli.COMMANDS, "wherry")
    found.sort(key=lambda each: (-each.count(" "), each))
    return found if len(found) > 1 else []


def _entries(table: Table) -> set[str]:
    """Every "module:function" below `table`."""
    entries: set[str] = set()
    for entry in table.values():
        entries |= {entry} if isinstance(entry, str) else _entries(entry)
    return entries


def _names(entry: str, declaration: Declaration) -> bool:
    module, _, name = entry.partition(":")
    function = declaration.function
    return function.__module__ == f"wherry.cli.{module}" and function.__name__ == name


def _width() -> int:
    return shutil.get_terminal_size().columns
