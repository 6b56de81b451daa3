"""Lines become instructions: their flags and arguments, checked as far as they can be alone.

Variables are not replaced here: what they are is known when the stage is built.
"""

from __future__ import annotations

import re

from wherry.builder.errors import DockerfileError, syntax_error
from wherry.builder.parser import bodies, is_heredoc, parse
from wherry.values import replace, value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wherry.builder.parser import Document, Heredoc, Line

_FLAGS: Mapping[str, frozenset[str]] = {
    "FROM": frozenset(("platform",)),
    "RUN": frozenset(("mount", "network", "security", "device")),
    "COPY": frozenset(("from", "chown", "chmod", "link", "parents", "exclude")),
    "ADD": frozenset(("chown", "chmod", "link", "exclude", "checksum", "keep-git-dir", "unpack")),
    "HEALTHCHECK": frozenset(("interval", "timeout", "start-period", "start-interval", "retries")),
}
# Flags that are told without a value, and those that may be given more than once.
_SWITCHES = frozenset(("link", "parents", "keep-git-dir", "unpack"))
_REPEATED = frozenset(("mount", "exclude", "device"))
_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*$")
_COMMENT = re.compile(r"\s+#.*$")


@value
class Instruction:
    """One instruction of a Dockerfile."""

    keyword: str
    flags: Mapping[str, tuple[str, ...]]
    # Its arguments; the one text of the shell form.
    words: tuple[str, ...] = ()
    # Names and what is said of them; None for an ARG without a value.
    pairs: tuple[tuple[str, str | None], ...] = ()
    # Whether it was written as a JSON list.
    is_exec: bool = False
    heredocs: tuple[Heredoc, ...] = ()
    first: int = 0
    last: int = 0
    # As it was written.
    text: str = ""

    def flag(self, name: str) -> str:
        """The value of a flag; "" where it was not given."""
        given = self.flags.get(name)
        return given[-1] if given else ""

    def is_set(self, name: str) -> bool:
        """Whether a switch was given, and not as `=false`."""
        return self.flag(name) not in ("", "false", "0")


@value
class Stage:
    """What stands between one FROM and the next."""

    index: int
    # In small letters; "" for a stage without a name.
    name: str
    base: str
    platform: str
    instructions: tuple[Instruction, ...]
    # The FROM itself.
    origin: Instruction


@value
class Dockerfile:
    """All of a Dockerfile."""

    # The ARGs before the first FROM.
    globals: tuple[Instruction, ...]
    stages: tuple[Stage, ...]
    escape: str
    text: str
    document: Document


def read_dockerfile(text: str) -> Dockerfile:
    """Read a Dockerfile. Raises DockerfileError."""
    document = parse(text)
    instructions = [read_instruction(line, document.escape) for line in document.lines]
    leading: list[Instruction] = []
    stages: list[Stage] = []
    for instruction in instructions:
        if instruction.keyword == "FROM":
            stages.append(_stage(instruction, stages))
        elif stages:
            last = stages[-1]
            stages[-1] = replace(last, instructions=(*last.instructions, instruction))
        elif instruction.keyword == "ARG":
            leading.append(instruction)
        else:
            raise syntax_error(
                "no build stage in current context",
                instruction.first,
                instruction.last,
                hint="a Dockerfile begins with FROM; before it only ARG may stand",
            )
    if not stages:
        raise DockerfileError("dockerfile contains no stages to build", 1)
    return Dockerfile(
        globals=tuple(leading),
        stages=tuple(stages),
        escape=document.escape,
        text=text,
        document=document,
    )


def _stage(origin: Instruction, before: list[Stage]) -> Stage:
    words = origin.words
    name = ""
    if len(words) == 3 and words[1].lower() == "as":
        name = words[2].lower()
        if not _STAGE_NAME.match(name):
            raise syntax_error(
                f'invalid name for build stage: "{words[2]}", name can\'t start with a number or'
                " contain symbols",
                origin.first,
            )
    elif len(words) != 1:
        raise syntax_error("FROM requires either one or three arguments", origin.first, origin.last)
    return Stage(
        index=len(before),
        name=name,
        base=words[0],
        platform=origin.flag("platform"),
        instructions=(),
        origin=origin,
    )


def read_instruction(line: Line, escape: str = "\\") -> Instruction:
    """What a line says. Raises DockerfileError."""
    read = _READERS.get(line.keyword)
    if read is None:
        raise syntax_error(
            f"unknown instruction: {line.spelling}{_guess(line.keyword)}", line.first, line.last
        )
    instruction = Instruction(
        keyword=line.keyword,
        flags=_read_flags(line),
        heredocs=line.heredocs,
        first=line.first,
        last=line.last,
        text=line.text,
    )
    if not line.rest and line.keyword not in _MAY_BE_EMPTY:
        raise syntax_error(
            f"{line.keyword} requires {_NEEDS.get(line.keyword, 'at least one argument')}",
            line.first,
            line.last,
        )
    return read(instruction, line.rest, escape)


def _guess(keyword: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(keyword, _READERS, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def _read_flags(line: Line) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    known = _FLAGS.get(line.keyword, frozenset())
    for flag in line.flags:
        name, equals, content = flag[2:].partition("=")
        if name not in known:
            hint = f"{line.keyword} takes {', '.join(f'--{one}' for one in sorted(known))}"
            raise syntax_error(
                f"unknown flag: --{name}", line.first, line.last, hint=hint if known else None
            )
        if name in _SWITCHES:
            if equals and content not in ("true", "false", "1", "0"):
                raise syntax_error(
                    f"expecting boolean value for flag {name}, not: {content}", line.first
                )
            content = content or "true"
        elif not equals:
            raise syntax_error(f"missing a value on flag: {name}", line.first, line.last)
        if name in found and name not in _REPEATED:
            raise syntax_error(f"duplicate flag specified: {name}", line.first, line.last)
        found[name] = (*found.get(name, ()), content)
    return found


# ---- arguments ----


def read_list(instruction: Instruction, text: str) -> tuple[str, ...] | None:
    """The words of a JSON list; None for what is none. What comes after it does not count."""
    if not text.startswith("["):
        return None
    from json import JSONDecoder

    try:
        words, _ = JSONDecoder().raw_decode(text)
    except ValueError:
        return None
    if not all(isinstance(word, str) for word in words):
        raise syntax_error(
            "when using JSON array syntax, arrays must be comprised of strings only",
            instruction.first,
            instruction.last,
        )
    return tuple(words)


def split_words(text: str, escape: str) -> list[str]:
    """The words of `text` as they are written: blanks within quotes do not separate."""
    words: list[str] = []
    word: list[str] = []
    quote = ""
    position = 0
    while position < len(text):
        character = text[position]
        if character == escape and quote != "'":
            word.append(text[position : position + 2])
            position += 2
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character.isspace():
            if word:
                words.append("".join(word))
            word = []
            position += 1
            continue
        word.append(character)
        position += 1
    if word:
        words.append("".join(word))
    return words


def _command(instruction: Instruction, rest: str, _: str) -> Instruction:
    words = read_list(instruction, rest)
    if words is not None:
        return replace(instruction, words=words, is_exec=True)
    return replace(instruction, words=(rest,) if rest else ())


def _shell(instruction: Instruction, rest: str, _: str) -> Instruction:
    words = read_list(instruction, rest)
    if not words:
        raise syntax_error(
            "SHELL requires the arguments to be in JSON form", instruction.first, instruction.last
        )
    return replace(instruction, words=words, is_exec=True)


def _list(instruction: Instruction, rest: str, escape: str) -> Instruction:
    words = read_list(instruction, rest)
    if words is None:
        return replace(instruction, words=tuple(split_words(rest, escape)))
    return replace(instruction, words=words, is_exec=True)


def _files(instruction: Instruction, rest: str, escape: str) -> Instruction:
    instruction = _list(instruction, rest, escape)
    if len(instruction.words) < 2:
        raise syntax_error(
            f"{instruction.keyword} requires at least two arguments, but only"
            f" {len(instruction.words)} provided. Destination could not be determined",
            instruction.first,
            instruction.last,
        )
    if instruction.heredocs and is_heredoc(instruction.words[-1]):
        raise syntax_error(
            f"{instruction.keyword} cannot accept a heredoc as a destination",
            instruction.first,
            instruction.last,
        )
    return instruction


def _whitespace(instruction: Instruction, rest: str, _: str) -> Instruction:
    return replace(instruction, words=tuple(rest.split()))


def _from(instruction: Instruction, rest: str, _: str) -> Instruction:
    return replace(instruction, words=tuple(_COMMENT.sub("", rest).split()))


def _text(instruction: Instruction, rest: str, _: str) -> Instruction:
    return replace(instruction, words=(rest,))


def _one(instruction: Instruction, rest: str, escape: str) -> Instruction:
    if len(split_words(rest, escape)) != 1:
        raise syntax_error(
            f"{instruction.keyword} requires exactly one argument",
            instruction.first,
            instruction.last,
        )
    return replace(instruction, words=(rest,))


def _pairs(instruction: Instruction, rest: str, escape: str) -> Instruction:
    keyword, first, last = instruction.keyword, instruction.first, instruction.last
    words = split_words(rest, escape)
    if "=" not in words[0]:
        name, *others = rest.split(None, 1)
        if not others:
            raise syntax_error(f"{keyword} must have two arguments", first, last)
        return replace(instruction, pairs=((name, others[0]),))
    pairs = []
    for word in words:
        name, equals, content = word.partition("=")
        if not equals:
            raise syntax_error(
                f"Syntax error - can't find = in {word!r}. Must be of the form: name=value",
                first,
                last,
            )
        if not name:
            raise syntax_error(f"{keyword} names can not be blank", first, last)
        pairs.append((name, content))
    return replace(instruction, pairs=tuple(pairs))


def _arg(instruction: Instruction, rest: str, escape: str) -> Instruction:
    pairs: list[tuple[str, str | None]] = []
    for word in split_words(rest, escape):
        name, equals, content = word.partition("=")
        if not name:
            raise syntax_error("ARG names can not be blank", instruction.first, instruction.last)
        pairs.append((name, content if equals else None))
    return replace(instruction, pairs=tuple(pairs))


def _onbuild(instruction: Instruction, rest: str, _: str) -> Instruction:
    keyword = rest.split(None, 1)[0].upper()
    if keyword in ("ONBUILD", "FROM", "MAINTAINER"):
        reason = (
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"
            if keyword == "ONBUILD"
            else f"{keyword} isn't allowed as an ONBUILD trigger"
        )
        raise syntax_error(reason, instruction.first, instruction.last)
    if keyword not in _READERS:
        raise syntax_error(
            f"unknown instruction: {keyword}{_guess(keyword)}", instruction.first, instruction.last
        )
    return replace(instruction, words=(rest + bodies(instruction.heredocs),))


def _healthcheck(instruction: Instruction, rest: str, _: str) -> Instruction:
    kind, command = (*rest.split(None, 1), "")[:2]
    first, last = instruction.first, instruction.last
    if kind.upper() == "NONE":
        if command.strip():
            raise syntax_error("HEALTHCHECK NONE takes no arguments", first, last)
        return replace(instruction, words=("NONE",))
    if kind.upper() != "CMD":
        raise syntax_error(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)', first, last)
    if not command.strip():
        raise syntax_error("Missing command after HEALTHCHECK CMD", first, last)
    words = read_list(instruction, command.strip())
    if words is not None:
        return replace(instruction, words=("CMD", *words), is_exec=True)
    return replace(instruction, words=("CMD-SHELL", command.strip()))


_READERS: dict[str, Callable[[Instruction, str, str], Instruction]] = {
    "ADD": _files,
    "ARG": _arg,
    "CMD": _command,
    "COPY": _files,
    "ENTRYPOINT": _command,
    "ENV": _pairs,
    "EXPOSE": _whitespace,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _pairs,
    "MAINTAINER": _text,
    "ONBUILD": _onbuild,
    "RUN": _command,
    "SHELL": _shell,
    "STOPSIGNAL": _one,
    "USER": _one,
    "VOLUME": _list,
    "WORKDIR": _text,
}
_MAY_BE_EMPTY = ("CMD", "ENTRYPOINT")
_NEEDS = {
    "FROM": "either one or three arguments",
    "MAINTAINER": "exactly one argument",
    "STOPSIGNAL": "exactly one argument",
    "USER": "exactly one argument",
    "WORKDIR": "exactly one argument",
}
