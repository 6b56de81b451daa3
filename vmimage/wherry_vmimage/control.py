"""Paragraphs of fields (deb822): control files, Release, `.sources`, the dpkg status."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, cast, get_args

from wherry.errors import CorruptState
from wherry_vmimage.versions import Operator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def parse_paragraph(text: str) -> dict[str, str]:
    """One paragraph: names as written, continuation lines joined without their first blank."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0] in " \t":
            if not name:
                raise CorruptState(f"a continuation line with no field before it: {line!r}")
            fields[name] += "\n" + line[1:].rstrip()
            continue
        name, colon, value = line.partition(":")
        name = name.strip()
        if not colon or not name:
            raise CorruptState(f"not a field: {line!r}")
        fields[name] = value.strip()
    return fields


def write_paragraph(fields: Mapping[str, str]) -> str:
    """`fields` as a paragraph that `parse_paragraph` reads."""
    return "".join(
        f"{name}:"
        + (f" {value}" if value and value[0] != "\n" else value).replace("\n", "\n ")
        + "\n"
        for name, value in fields.items()
    )


def parse_paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of `text`, which empty lines divide."""
    for paragraph in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        if fields := parse_paragraph(paragraph):
            yield fields


class Relation(NamedTuple):
    """One package that a dependency names: `name:qualifier (operator version)`."""

    name: str
    qualifier: str = ""
    operator: Operator | None = None
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.operator} {self.version})" if self.operator else self.name


# What a dependency accepts: any one of these.
Alternatives = tuple[Relation, ...]

_RELATION = re.compile(
    r"""(?P<name>[A-Za-z0-9][A-Za-z0-9+.-]*)
        (?: : (?P<qualifier>[A-Za-z0-9-]+) )?
        (?: \s* \( \s* (?P<operator><<|<=|>=|>>|=|<|>) \s*
                       (?P<version>[A-Za-z0-9.+:~-]+) \s* \) )?""",
    re.VERBOSE,
)
# "<" and ">" are the old spelling of "<=" and ">=".
_OLD_OPERATORS = {"<": "<=", ">": ">="}


def parse_relations(text: str) -> tuple[Alternatives, ...]:
    """A dependency field: all of these, of each any one."""
    return tuple(
        tuple(_parse_relation(relation.strip()) for relation in alternatives.split("|"))
        for alternatives in text.split(",")
        if alternatives.strip()
    )


def _parse_relation(text: str) -> Relation:
    match = _RELATION.fullmatch(text)
    if match is None:
        raise CorruptState(f"not a package relation: {text!r}")
    operator = match["operator"]
    operator = _OLD_OPERATORS.get(operator, operator)
    assert operator is None or operator in get_args(Operator)
    return Relation(
        match["name"],
        match["qualifier"] or "",
        cast("Operator | None", operator),
        match["version"] or "",
    )
