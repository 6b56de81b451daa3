"""Python's .pyc files, which a guest would otherwise make again at each of its starts.

They hold for one minor version of Python, so an interpreter of the guest's version has
to make them: Debian's own, started out of its packages by its own dynamic loader where
this machine can run it (no root, no container), or else one that is installed here.
Bytecode is the same on every architecture. The files are marked as unchecked: in a
read-only image no source can be newer.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wherry.errors import WherryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry_vmimage.tree import Tree

# Reads lengths, paths and sources; answers each with a length and the bytes, none for a
# source that is not of this version. All in one process and one order, because what is
# written depends on what the interpreter has interned.
_COMPILE = """\
import marshal, struct, sys
from importlib.util import MAGIC_NUMBER, source_hash
read, write = sys.stdin.buffer.read, sys.stdout.buffer.write
while head := read(8):
    length, size = struct.unpack("<II", head)
    path, source = read(length).decode(), read(size)
    try:
        code = compile(source, path, "exec", dont_inherit=True, optimize=0)
        made = MAGIC_NUMBER + struct.pack("<I", 1) + source_hash(source) + marshal.dumps(code)
    except (SyntaxError, ValueError):
        made = b""
    write(struct.pack("<I", len(made)) + made)
"""
_LIBRARY = re.compile(r"usr/lib/python(?P<version>3\.\d+)/os\.py")
# What the interpreter itself is linked with.
_RUNNABLE = re.compile(
    r"usr/bin/python3\.\d+|usr/lib/python3\.\d+/(?!test/).*\.py"
    r"|usr/lib/[^/]+-linux-gnu[^/]*/(?:ld-linux|lib(?:c|m|z|expat|dl|pthread|util)[.-])[^/]*"
)
_LOADER = re.compile(r"usr/lib/[^/]+/ld-linux[^/]*\.so\.\d+")


def python_version(tree: Tree) -> str:
    """The minor version of the Python in `tree`, as "3.13"."""
    found = [match["version"] for path in tree.paths() if (match := _LIBRARY.fullmatch(path))]
    if len(found) != 1:
        raise WherryError("the guest's packages hold no Python, or several")
    return found[0]


def installed_python(version: str) -> list[str] | None:
    """How an interpreter of this minor version is started here, if one is installed."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == version:
        return [sys.executable]
    # A version manager's stand-in may be there for what is not.
    if (path := shutil.which(f"python{version}")) and _works([path]):
        return [path]
    if sys.platform == "win32" and shutil.which("py") and _works(["py", f"-{version}"]):
        return ["py", f"-{version}"]
    return None


def _works(command: list[str]) -> bool:
    result = subprocess.run(
        [*command, "-c", ""], capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    return result.returncode == 0


@contextmanager
def unpacked_python(tree: Tree, version: str) -> Iterator[tuple[list[str], dict[str, str]]]:
    """How the Python that is unpacked in `tree` is started on this machine: words, environment."""
    with tempfile.TemporaryDirectory(prefix="wherry-python-") as root:
        loader = libraries = ""
        for path in tree.paths():
            entry = tree.get(path)
            if not _RUNNABLE.fullmatch(path) or entry is None or entry.kind == "directory":
                continue
            target = os.path.join(root, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                file.write(tree.read(path))
            os.chmod(target, 0o755)
            if _LOADER.fullmatch(path):
                loader, libraries = target, os.path.dirname(target)
        program = os.path.join(root, "usr/bin", f"python{version}")
        yield (
            [loader, "--library-path", libraries, program],
            {"PYTHONHOME": os.path.join(root, "usr")},
        )


def compile_tree(tree: Tree, version: str, command: list[str], environment: dict[str, str]) -> int:
    """Add to every Python source in `tree` its bytecode, made by `command`; how many."""
    sources = [
        path
        for path in tree.paths()
        if path.endswith(".py") and (entry := tree.get(path)) and entry.kind == "file"
    ]
    request = b"".join(named(f"/{path}", tree.read(path)) for path in sources)
    answer = run(command, _COMPILE, request, environment)
    position = made = 0
    for path in sources:
        (size,) = struct.unpack_from("<I", answer, position)
        position += 4 + size
        if size:
            tree.file(cached(path, version), answer[position - size : position])
            made += 1
    return made


def cached(path: str, version: str) -> str:
    """Where the bytecode of the source at `path` is."""
    directory, name = os.path.split(path)
    return f"{directory}/__pycache__/{name[:-3]}.cpython-{version.replace('.', '')}.pyc"


def named(name: str, content: bytes) -> bytes:
    """A source as programs for `run` read them."""
    return struct.pack("<II", len(name.encode()), len(content)) + name.encode() + content


def run(command: list[str], program: str, request: bytes, environment: dict[str, str]) -> bytes:
    """What a program in Python answers to `request`, carried out by the guest's version."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run(
        [*command, "-S", "-s", "-B", "-c", program],
        input=request,
        capture_output=True,
        check=False,
        # What is hashed comes out in the same order each time.
        env={**clean, **environment, "PYTHONHASHSEED": "0"},
    )
    if result.returncode:
        said = result.stderr.decode(errors="replace").strip()
        raise WherryError(f"Python could not compile the guest's: {said[-500:]}")
    return result.stdout
