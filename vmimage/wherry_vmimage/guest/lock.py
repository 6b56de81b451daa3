"""The packages of an image, recorded: what `--locked` makes the same image of again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wherry.errors import CorruptState, NotFound
from wherry_vmimage.packages import Package

if TYPE_CHECKING:
    from collections.abc import Sequence

_SCHEMA = 1
# The fields of an index that say which file it is.
_FIELDS = ("Package", "Version", "Architecture", "SHA256", "Size", "Filename")


@dataclass(frozen=True, kw_only=True)
class Lock:
    """What an image was made of."""

    architecture: str
    suite: str
    date: int  # of the archive, which is the time of every file
    packages: tuple[Package, ...]
    python: tuple[Package, ...] = ()  # another architecture's, which made the bytecode

    def to_json(self) -> str:
        content = {
            "schema": _SCHEMA,
            "architecture": self.architecture,
            "suite": self.suite,
            "date": self.date,
            "packages": [_fields(package) for package in self.packages],
            "python": [_fields(package) for package in self.python],
        }
        return json.dumps(content, indent=1) + "\n"


def read_lock(path: str, bases: Sequence[str]) -> Lock:
    """The lock in a file; its packages are looked for at `bases`. Raises NotFound, CorruptState."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        raise NotFound(f"no such file: {path}") from None
    except ValueError as error:
        raise CorruptState(f"{path} is not a list of packages: {error}") from error
    try:
        if content["schema"] != _SCHEMA:
            raise CorruptState(f"{path} is of another version of wherry")
        return Lock(
            architecture=str(content["architecture"]),
            suite=str(content["suite"]),
            date=int(content["date"]),
            packages=tuple(_package(fields, bases) for fields in content["packages"]),
            python=tuple(_package(fields, bases) for fields in content["python"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptState(f"{path} is not a list of packages: {error!r}") from error


def _fields(package: Package) -> dict[str, str]:
    return {name: package.fields[name] for name in _FIELDS}


def _package(fields: dict[str, Any], bases: Sequence[str]) -> Package:
    known = {name: str(fields[name]) for name in _FIELDS}
    return Package(known, bases[0], other_uris=tuple(bases[1:]))
