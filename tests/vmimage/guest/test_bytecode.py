"""Bytecode that the builder makes: a guest's Python takes it as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from wherry.errors import WherryError
from wherry_vmimage.guest.bytecode import compile_tree, installed_python, python_version
from wherry_vmimage.tree import Tree

if TYPE_CHECKING:
    from pathlib import Path

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
CACHED = f"__pycache__/said.cpython-{VERSION.replace('.', '')}.pyc"


def compiled(*, source: str = "print('as compiled')\n") -> Tree:
    tree = Tree()
    tree.file("lib/said.py", source)
    tree.file("lib/old.py", "print 'of Python 2'\n")
    assert compile_tree(tree, VERSION, [sys.executable], {}) == 1
    return tree


def test_python_takes_it_and_does_not_look_at_the_source(tmp_path: Path) -> None:
    with compiled() as tree:
        (tmp_path / "__pycache__").mkdir()
        (tmp_path / CACHED).write_bytes(tree.read(f"lib/{CACHED}"))
    (tmp_path / "said.py").write_text("print('changed since')\n")

    result = subprocess.run(
        [sys.executable, "-c", "import said"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stdout == "as compiled\n"


def test_it_names_the_source_as_the_guest_sees_it() -> None:
    with compiled() as tree:
        assert b"/lib/said.py" in tree.read(f"lib/{CACHED}")


def test_same_source_makes_the_same_bytes() -> None:
    source = "".join(f"def f{i}(): return {{'name{i}', 'b', 'c'}}\n" for i in range(50))
    with compiled(source=source) as first, compiled(source=source) as second:
        assert first.read(f"lib/{CACHED}") == second.read(f"lib/{CACHED}")


def test_own_interpreter_serves_for_its_version() -> None:
    assert installed_python(VERSION) == [sys.executable]


@pytest.mark.skipif(os.name != "posix", reason="a script stands for the interpreter")
def test_stand_in_for_what_is_not_installed_does_not_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python3.99").write_text("#!/bin/sh\nexit 127\n")
    (tmp_path / "python3.99").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    assert installed_python("3.99") is None


def test_version_is_that_of_the_library() -> None:
    with Tree() as tree:
        tree.file("usr/lib/python3.13/os.py", "")
        assert python_version(tree) == "3.13"

        tree.file("usr/lib/python3.14/os.py", "")
        with pytest.raises(WherryError, match="no Python, or several"):
            python_version(tree)
