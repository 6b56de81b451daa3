"""Whose work is in an image, and on what terms: read from what each package says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from wherry_vmimage.packages import Package
    from wherry_vmimage.tree import Tree

_LICENCE = re.compile(r"^License:[ \t]*(\S[^\n]*)$", re.MULTILINE)
_COMMON = "usr/share/common-licenses/"
_SOURCE = re.compile(r"(?P<name>\S+)(?: \((?P<version>[^)]+)\))?")
_RULE = "=" * 78


def copyright_of(tree: Tree, package: str) -> str:
    """What a package's own file says; "" where it has none."""
    try:
        return tree.read(f"usr/share/doc/{package}/copyright").decode("utf-8", "replace")
    except KeyError:
        return ""


def licence_names(text: str) -> list[str]:
    """The short names of the licences in a copyright file that programs can read (DEP 5)."""
    words: set[str] = set()
    for line in _LICENCE.findall(text):
        words.update(name.strip() for name in re.split(r"\s+(?:and|or|with)\s+|,", line))
    return sorted(word for word in words if word)


def source_of(package: Package, control: dict[str, str]) -> tuple[str, str]:
    """The name and version of the source that `package` was built from."""
    match = _SOURCE.match(control.get("Source", ""))
    # A rebuild without a change of the source has a number of its own.
    version = re.sub(r"\+b\d+$", "", package.version)
    if match is None:
        return package.name, version
    return match["name"], match["version"] or version


def licence_texts(tree: Tree, packages: Iterable[Package]) -> str:
    """All copyright files, each with the packages that it is for, and what they refer to."""
    by_text: dict[str, list[str]] = {}
    for package in packages:
        if text := copyright_of(tree, package.name):
            by_text.setdefault(text, []).append(str(package))
    parts = [f"{_RULE}\n{', '.join(names)}\n{_RULE}\n\n{text}" for text, names in by_text.items()]
    for path in tree.paths():
        entry = tree.get(path)
        if path.startswith(_COMMON) and entry and entry.kind == "file":
            text = tree.read(path).decode("utf-8", "replace")
            parts.append(f"{_RULE}\n/{path}\n{_RULE}\n\n{text}")
    return "\n\n".join(parts)
