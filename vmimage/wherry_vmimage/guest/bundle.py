"""The bytecode of all that the guest's runner imports at its start, in one file.

wherry_vm.guest.bundle reads it. Which modules those are is found in the sources, by what
they import at their top: none that is missing is missed, and one too many costs its size.
"""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING

from wherry_vm.guest.bundle import PLACE
from wherry_vmimage.guest.bytecode import cached, named, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wherry_vmimage.tree import Tree

# Reads the names of modules and their sources, the roots first, which have none; answers with
# the names of those that the roots import, and these in their turn. It is the guest's own
# version that reads them, so that the answer is the same on every host.
_FOLLOW = """\
import ast, struct, sys

TESTS = {"TYPE_CHECKING", "__name__"}

def imported(tree, package):
    nodes = list(tree.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*up, node.module] if node.module else up)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and any(
            getattr(part, "id", getattr(part, "attr", "")) in TESTS for part in ast.walk(node.test)
        ):
            nodes += node.orelse
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            nodes += ast.iter_child_nodes(node)

read = sys.stdin.buffer.read
wanted, sources, found = [], {}, set()
while head := read(8):
    length, size = struct.unpack("<II", head)
    name, source = read(length).decode(), read(size)
    if size:
        sources[name] = source
    else:
        wanted.append(name)
while wanted:
    name = wanted.pop()
    while name and name not in found:
        is_package = name + ".__init__" in sources
        source = sources.get(name + ".__init__" if is_package else name)
        if source is not None:
            found.add(name)
            package = name if is_package else name.rpartition(".")[0]
            wanted += imported(ast.parse(source), package)
        name = name.rpartition(".")[0]
print("\\n".join(sorted(found)))
"""


def write_bundle(
    tree: Tree,
    version: str,
    roots: Iterable[str],
    command: list[str],
    environment: dict[str, str],
) -> None:
    """Add to `tree`, whose sources have been compiled, the bundle of what `roots` import."""
    paths = dict(_modules(tree, version))
    request = b"".join(named(root, b"") for root in roots)
    # A source that is empty imports nothing, and is a module all the same.
    request += b"".join(named(name, tree.read(path) or b"\n") for name, path in paths.items())
    found = {}
    for name in run(command, _FOLLOW, request, environment).decode().split():
        is_package = f"{name}.__init__" in paths
        path = paths[f"{name}.__init__" if is_package else name]
        bytecode = cached(path, version)
        if bytecode in tree:
            # After its magic number, flags and the digest of its source.
            content = tree.read(bytecode)[16:]
            found[name] = (is_package, f"/{path}", f"/{bytecode}", content)
    # Without references, of which other versions of Python write others.
    tree.file(PLACE.lstrip("/"), marshal.dumps(found, 2))


def _modules(tree: Tree, version: str) -> Iterator[tuple[str, str]]:
    """Every module with a source, by its name, and "package.__init__" for a package."""
    places = (f"usr/lib/python{version}/", "usr/lib/python3/dist-packages/")
    for path in tree.paths():
        for place in places:
            if path.startswith(place) and path.endswith(".py"):
                yield path[len(place) : -3].replace("/", "."), path
