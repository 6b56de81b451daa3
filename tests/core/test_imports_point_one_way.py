"""Imports point one way, as docs/architecture.md draws it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TREE = Path(__file__).parents[2]
# What the picture's text says is meant.
MEANT = {"wherry.builder.changes"}


def layers() -> dict[str, int]:
    """The modules and packages of core, and how far down each stands in the picture."""
    text = (TREE / "docs/architecture.md").read_text(encoding="utf-8")
    picture = text.split("Inside core, from the bottom up:\n\n```\n")[1].split("\n```")[0]
    rows = [line[:37] for line in picture.splitlines() if not line.startswith(" ")]
    return {name: at for at, row in enumerate(rows) for name in row.replace(",", " ").split()}


def imports(path: Path) -> Iterator[str]:
    """The full names of what a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{each.name}" for each in node.names)


def test_every_part_of_core_is_in_the_picture() -> None:
    parts = {path.stem for path in (TREE / "core/wherry").glob("[!_]*") if _is_code(path)}

    assert parts == set(layers())


def _is_code(path: Path) -> bool:
    return path.suffix == ".py" or (path / "__init__.py").is_file()


def test_core_imports_what_it_stands_on_and_never_what_stands_on_it() -> None:
    known = layers()
    wrong = []
    for path in sorted((TREE / "core/wherry").rglob("*.py")):
        own = path.relative_to(TREE / "core/wherry").parts[0].removesuffix(".py")
        for name in imports(path):
            other = name.split(".")[1] if name.startswith("wherry.") else ""
            if known.get(own, 99) < known.get(other, 0) and name.rpartition(".")[0] not in MEANT:
                wrong.append(f"{path.relative_to(TREE)} imports {name}")

    assert wrong == []


@pytest.mark.parametrize(
    ("package", "others"),
    [
        ("core/wherry", ("wherry_linux", "wherry_vm")),
        ("linux_backend/wherry_linux", ("wherry_vm", "wherry_vmimage")),
        ("vm_backend/wherry_vm", ("wherry_linux", "wherry_vmimage")),
        ("vmimage/wherry_vmimage", ("wherry_linux",)),
    ],
)
def test_a_package_knows_nothing_of_those_beside_it(package: str, others: tuple[str, ...]) -> None:
    wrong = [
        f"{path.relative_to(TREE)} imports {name}"
        for path in sorted((TREE / package).rglob("*.py"))
        # The guest is a Linux.
        if "wherry_vm/guest/" not in path.as_posix()
        for name in imports(path)
        if name.partition(".")[0] in others
    ]

    assert wrong == []
