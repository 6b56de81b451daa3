"""Environment variables and labels, as docker reads them: on the command line and in files.

A file is raw: quotes belong to the value, nothing is expanded.
"""

from __future__ import annotations

import os

from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SPACES = " \t\v\f\r\n"


def read_env_file(path: str, environment: Mapping[str, str]) -> list[str]:
    """The `NAME=value` lines of a file; a name alone takes its value from `environment`."""
    return resolve_env(_lines(path, "env file"), environment)


def read_label_file(path: str) -> list[str]:
    """The `name=value` lines of a file; a name alone has an empty value."""
    return _lines(path, "label file")


def resolve_env(entries: Iterable[str], environment: Mapping[str, str]) -> list[str]:
    """`-e` values; a name alone is inherited, or left out where it is not set."""
    resolved = []
    for entry in entries:
        name, equals, _ = entry.partition("=")
        if not name:
            raise UsageError(f"invalid environment variable: {entry}")
        if "\0" in entry:
            raise UsageError(f"invalid environment variable: {name}: it holds a NUL byte")
        if equals:
            resolved.append(entry)
        elif name in environment:
            resolved.append(f"{name}={environment[name]}")
    return resolved


def merge_env(*lists: Iterable[str]) -> list[str]:
    """One entry for each name, in the place of its first and with the value of its last."""
    entries: dict[str, str] = {}
    for entry in (entry for each in lists for entry in each):
        entries[entry.partition("=")[0]] = entry
    return list(entries.values())


def _lines(path: str, what: str) -> list[str]:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UsageError(f"open {path}: {os.strerror(error.errno or 0).lower()}") from error
    entries = []
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, raw in enumerate(lines, 1):
        try:
            line = raw.removesuffix(b"\r").decode().lstrip(_SPACES)
        except UnicodeDecodeError:
            raise UsageError(
                f"invalid {what} ({path}): invalid utf8 bytes at line {number}"
            ) from None
        if line and not line.startswith("#"):
            entries.append(_entry(line, f"invalid {what} ({path})"))
    return entries


def _entry(line: str, wrong: str) -> str:
    name, equals, text = line.partition("=")
    if not equals:
        name = name.rstrip(_SPACES)
    if not name:
        raise UsageError(f"{wrong}: no variable name on line '{line}'")
    if any(space in name for space in _SPACES):
        raise UsageError(f"{wrong}: variable '{name}' contains whitespaces")
    return f"{name}{equals}{text}"
