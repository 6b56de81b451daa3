"""How a command of ours is declared, parsed, and written down again.

A command is data and a function. The data serves four readers: the parser here, which
imports nothing and so keeps `wherry run` quick; the help pages and the completion,
which click makes from the same declaration (`wherry.cli.clickify`); and `argv`, which
writes parsed values as a command line that another wherry understands.

    @command(
        option("-s", "--signal", metavar="string", help="Signal to send to the container"),
        argument("container", nargs=-1, required=True),
        name="container kill",
    )
    def kill(container: tuple[str, ...], signal: str) -> int:
        '''Kill one or more running containers'''
        return execute(
            Command(
                argv=kill.argv(container=container, signal=signal),
                action=lambda engine: engine.containers.kill(container, signal),
            )
        )

`kill` is now a `Declaration`. One line in the table of `wherry.cli.main` gives it its
names: `"kill": "container:kill"`. Its function is called with one keyword argument for
each option and argument, and its result is the exit code.

command(*parameters, name=…, interspersed=True, usage=None, examples="", hidden=False)
    The function's docstring is the help: its first line the summary in lists of
    commands, all of it the page. `name` is the canonical path that `argv` begins with
    (default: the function's name, `_` as `-`). `interspersed=False`: options end at the
    first argument, as in `run IMAGE COMMAND…`. `usage` replaces what is made from the
    parameters ("[OPTIONS] CONTAINER [CONTAINER...]"). `failure` is the exit code of an
    error that brings none (docker: 125 for run, 1 for others).

option("-s", "--long", …)                                   the function receives
    (nothing)                    --long TEXT                str, default ""
    type=int | float             --long 5                   int, default 0
    type=bool                    --long, --long=false       bool, default False; default=None tells
                                                            "not said" from "false"
    multiple=True                repeated                   tuple, default ()
    count=True                   -vvv                       int
    choices=("a", "b")           one of them
    convert=function             function(text) -> value;   raise ValueError or UsageError with
                                                            the reason
    bare="text"                  --long without a value stands for --long=text
    default=…, env="NAME"        used where the option is absent; the environment goes first
    name="python_name"           the keyword, where the last long flag is no good one
    aliases=("--net",)           more spellings, not shown
    hidden=True, deprecated="use --x", metavar="list", help="…"
    write=function               value -> text, where str(value) would not be parsed back

argument("name", nargs=1 | -1, required=True, metavar="CONTAINER", convert=…)
    The function receives str, or a tuple for nargs=-1; an absent optional one is "".

The grammar is docker's: `--flag value`, `--flag=value`, `-f value`, `-fvalue`,
`-f=value`, clusters (`-itd`), `--` ends the options; booleans take `=true`, `=false`,
`=1`, `=0`, … A line that does not fit raises UsageError in docker's words.
"""

# ruff: noqa: A002 - type and help are the words for it

from __future__ import annotations

import os
import sys

from wherry.errors import UsageError
from wherry.words import read_bool, read_integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    Values = dict[str, Any]

HELP = "help"
"""The key under which `parse` says that --help was asked for."""

_WITHOUT = object()


class Option:
    """One option of a command."""

    __slots__ = (
        "aliases", "bare", "choices", "convert", "count", "default", "deprecated", "env",
        "flags", "help", "hidden", "metavar", "multiple", "name", "type", "write",
    )  # fmt: skip

    def __init__(
        self,
        *flags: str,
        type: type = str,
        default: Any = _WITHOUT,
        name: str = "",
        multiple: bool = False,
        count: bool = False,
        choices: tuple[str, ...] = (),
        convert: Callable[[str], Any] | None = None,
        write: Callable[[Any], str] = str,
        bare: str | None = None,
        env: str = "",
        aliases: tuple[str, ...] = (),
        hidden: bool = False,
        deprecated: str = "",
        metavar: str = "",
        help: str = "",
    ) -> None:
        if default is _WITHOUT:
            default = () if multiple else 0 if count else type()
        self.flags = flags
        self.type = int if count else type
        self.default = default
        self.name = name or flags[-1].lstrip("-").replace("-", "_")
        self.multiple = multiple
        self.count = count
        self.choices = choices
        self.convert = convert
        self.write = write
        self.bare = bare
        self.env = env
        self.aliases = aliases
        self.hidden = hidden
        self.deprecated = deprecated
        self.metavar = metavar
        self.help = help

    @property
    def is_flag(self) -> bool:
        """Whether it can be given without a value."""
        return self.type is bool or self.count or self.bare is not None

    @property
    def long(self) -> str:
        """The spelling that `argv` writes."""
        return self.flags[-1]

    def read(self, text: str) -> Any:
        """The value that `text` means. Raises UsageError."""
        try:
            if self.convert is not None:
                return self.convert(text)
            if self.choices and text not in self.choices:
                raise ValueError(f"must be one of {', '.join(self.choices)}")
            if self.type is str:
                return text
            if self.type is bool:
                return read_bool(text)
            return read_integer(text) if self.type is int else float(text)
        except ValueError as error:
            reason = f"must be a number: {text!r}" if self.type is float else str(error)
        except UsageError as error:
            reason = error.message
        shown = ", ".join(self.flags)
        raise UsageError(f'invalid argument "{text}" for "{shown}" flag: {reason}')


class Argument:
    """One positional argument of a command."""

    __slots__ = ("convert", "metavar", "name", "nargs", "required")

    def __init__(
        self,
        name: str,
        *,
        nargs: int = 1,
        required: bool = True,
        metavar: str = "",
        convert: Callable[[str], Any] | None = None,
    ) -> None:
        self.name = name
        self.nargs = nargs
        self.required = required
        self.metavar = metavar or name.upper()
        self.convert = convert

    def read(self, texts: Sequence[str]) -> Any:
        """The value of the words that fell to this argument. Raises UsageError."""
        convert = self.convert
        if self.nargs == 1 and not texts:
            return ""
        try:
            values = tuple(texts) if convert is None else tuple(convert(text) for text in texts)
        except ValueError as error:
            raise UsageError(f"invalid {self.metavar}: {error}") from error
        return values[0] if self.nargs == 1 else values


option = Option
argument = Argument


class Declaration:
    """A command: its parameters and its function."""

    def __init__(
        self,
        function: Callable[..., int],
        parameters: tuple[Option | Argument, ...],
        path: tuple[str, ...],
        interspersed: bool,
        usage: str | None,
        examples: str,
        hidden: bool,
        failure: int,
    ) -> None:
        self.function = function
        self.options = tuple(each for each in parameters if isinstance(each, Option))
        self.arguments = tuple(each for each in parameters if isinstance(each, Argument))
        self.path = path
        self.interspersed = interspersed
        self._usage = usage
        self.examples = examples
        self.hidden = hidden
        self.failure = failure

    @property
    def help(self) -> str:
        """The function's docstring, without its indentation."""
        lines = (self.function.__doc__ or "").strip().splitlines()
        return "\n".join(line.removeprefix("    ") for line in lines)

    @property
    def summary(self) -> str:
        """The first line of the help."""
        return self.help.partition("\n")[0].rstrip(".")

    @property
    def usage(self) -> str:
        """What follows the command's name in its usage line."""
        if self._usage is not None:
            return self._usage
        words = ["[OPTIONS]"] if any(not each.hidden for each in self.options) else []
        for each in self.arguments:
            more = f"[{each.metavar}...]" if each.nargs == -1 else ""
            if each.required:
                words.append(f"{each.metavar} {more}".rstrip())
            else:
                words.append(more or f"[{each.metavar}]")
        return " ".join(words)

    def parse(self, words: Sequence[str], spelled: str = "") -> Values:
        """The values that `words` give. Raises UsageError; {HELP: True} where --help is asked."""
        spelled = " ".join(("wherry", *(spelled.split() or self.path)))
        try:
            values, rest = self._parse_options(words)
            if HELP in values:
                return values
            values.update(self._parse_arguments(rest, spelled))
        except UsageError as error:
            see = f"See '{spelled} --help'."
            error.hint = see if error.hint is None else f"{error.hint} {see}"
            if error.exit_code is None:
                error.exit_code = 125
            raise
        return values

    def argv(self, **values: Any) -> tuple[str, ...]:
        """A command line that parses to `values`; absent ones keep their default."""
        words = list(self.path)
        for each in self.options:
            value = values.get(each.name, each.default)
            if value != each.default:
                words += _write_option(each, value)
        given: list[str] = []
        for positional in reversed(self.arguments):
            value = values.get(positional.name, ())
            if isinstance(value, tuple):
                given = [*value, *given]
            elif value != "" or positional.required or given:
                given = [value, *given]
        doubtful = given if self.interspersed else given[:1]
        if any(word.startswith("-") and word != "-" for word in doubtful):
            words.append("--")
        return (*words, *given)

    def __call__(self, **values: Any) -> int:
        """Carry the command out; absent values keep their default."""
        return self.function(**{**self.defaults(), **values})

    def defaults(self) -> Values:
        """What the options are where the line does not say: the environment's, or ours."""
        values: Values = {}
        for each in self.options:
            text = os.environ.get(each.env) if each.env else None
            values[each.name] = each.read(text) if text else each.default
        return values

    def _parse_options(self, words: Sequence[str]) -> tuple[Values, list[str]]:
        """The options' values, and the words that are none."""
        values = self.defaults()
        known = {flag: each for each in self.options for flag in (*each.flags, *each.aliases)}
        seen: set[str] = set()
        rest: list[str] = []
        queue = iter(words)
        for word in queue:
            if word == "--":
                rest += queue
            elif word[:1] != "-" or word == "-":
                rest.append(word)
                if not self.interspersed:
                    rest += queue
            else:
                split = _split_long if word.startswith("--") else _split_short
                for flag, text in split(word, queue, known):
                    if flag is None:
                        return {HELP: True}, rest
                    _store(flag, text, values, seen)
        return values, rest

    def _parse_arguments(self, words: list[str], spelled: str) -> Values:
        least = sum(each.required for each in self.arguments)
        variadic = any(each.nargs == -1 for each in self.arguments)
        most = sys.maxsize if variadic else len(self.arguments)
        if not least <= len(words) <= most:
            error = UsageError(f"'{spelled}' {_arity(least, most)}")
            error.exit_code = 1
            raise error
        values: Values = {}
        spare = len(words) - least
        start = 0
        for each in self.arguments:
            extra = spare if each.nargs == -1 else int(spare > 0 and not each.required)
            spare -= extra
            end = start + each.required + extra
            values[each.name] = each.read(words[start:end])
            start = end
        return values


def command(
    *parameters: Option | Argument,
    name: str | None = None,
    interspersed: bool = True,
    usage: str | None = None,
    examples: str = "",
    hidden: bool = False,
    failure: int = 1,
) -> Callable[[Callable[..., int]], Declaration]:
    """Declare the decorated function a command; see the head of this module."""

    def declare(function: Callable[..., int]) -> Declaration:
        path = function.__name__.strip("_").replace("_", "-") if name is None else name
        return Declaration(
            function,
            parameters,
            tuple(path.split()),
            interspersed,
            usage,
            examples,
            hidden,
            failure,
        )

    return declare


def _split_long(
    word: str, queue: Iterator[str], known: Mapping[str, Option]
) -> Iterator[tuple[Option | None, str]]:
    """The option and the text that `--word` holds."""
    flag, equals, text = word.partition("=")
    if flag == "--":
        raise UsageError(f"bad flag syntax: {word}")
    found = known.get(flag)
    if found is None:
        if flag == "--help":
            yield None, ""
            return
        raise UsageError(f"unknown flag: {flag}", hint=_similar(flag, known))
    if not equals:
        text = _value(found, queue, flag)
    yield found, text


def _split_short(
    word: str, queue: Iterator[str], known: Mapping[str, Option]
) -> Iterator[tuple[Option | None, str]]:
    """The options that a cluster like `-itp80:80` holds, each with its text."""
    for at in range(1, len(word)):
        letter, rest = word[at], word[at + 1 :]
        found = known.get(f"-{letter}")
        if found is None:
            if letter == "h" and word == "-h":
                yield None, ""
                return
            raise UsageError(f"unknown shorthand flag: '{letter}' in {word}")
        if rest[:1] == "=":
            yield found, rest[1:]
            return
        if not found.is_flag and rest:
            yield found, rest
            return
        yield found, _value(found, queue, f"'{letter}' in {word}")


def _value(found: Option, queue: Iterator[str], where: str) -> str:
    """The text of an option that has none attached."""
    if found.is_flag:
        return found.bare if found.bare is not None else "+1" if found.count else "true"
    text = next(queue, None)
    if text is None:
        raise UsageError(f"flag needs an argument: {where}")
    return text


def _store(found: Option, text: str, values: Values, seen: set[str]) -> None:
    """Put what was said of an option into `values`."""
    if found.deprecated and found.name not in seen:
        print(f"wherry: flag {found.long} has been deprecated, {found.deprecated}", file=sys.stderr)
    name = found.name
    if found.count and text == "+1":
        values[name] += 1
    elif found.multiple:
        before = values[name] if name in seen else ()
        values[name] = (*before, found.read(text))
    else:
        values[name] = found.read(text)
    seen.add(name)


def _write_option(each: Option, value: Any) -> list[str]:
    if each.multiple:
        return [f"{each.long}={each.write(one)}" for one in value]
    if each.type is bool:
        return [each.long if value else f"{each.long}=false"]
    return [f"{each.long}={each.write(value)}"]


def _arity(least: int, most: int) -> str:
    """docker's words for a wrong number of arguments."""
    if most == 0:
        return "accepts no arguments"
    if most == least:
        return f"requires {_arguments(least)}"
    if most == sys.maxsize:
        return f"requires at least {_arguments(least)}"
    if least == 0:
        return f"requires at most {_arguments(most)}"
    return f"requires at least {least} and at most {_arguments(most)}"


def _arguments(count: int) -> str:
    return "1 argument" if count == 1 else f"{count} arguments"


def _similar(word: str, known: Mapping[str, Option]) -> str | None:
    """What may have been meant; None where nothing is near."""
    from difflib import get_close_matches

    visible = [flag for flag, each in known.items() if not each.hidden and flag.startswith("--")]
    near = get_close_matches(word, visible, n=1, cutoff=0.75)
    return f"Did you mean {near[0]}?" if near else None
