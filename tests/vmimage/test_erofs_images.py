"""A tree as an erofs image: what fsck.erofs finds in it."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.requirements import need_tool
from wherry.errors import Unsupported
from wherry_vmimage.erofs import write_erofs
from wherry_vmimage.tree import Tree

TIME = 1_700_000_000

# Around the sizes at which the end of a file moves into a block of its own.
SIZES = st.one_of(
    st.integers(0, 200), st.integers(4000, 4200), st.sampled_from([8192, 8193, 12000, 70000])
)
NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20
).filter(lambda name: name not in (".", ".."))
FILES = st.builds(lambda size, seed: bytes([seed]) * size, SIZES, st.integers(0, 255))


@st.composite
def trees(draw: st.DrawFn) -> dict[str, bytes | str | None]:
    """Paths with a file's content, a link's target, or None for a directory."""
    found: dict[str, bytes | str | None] = {}
    directories = [""]
    for name in draw(st.lists(NAMES, max_size=20, unique=True)):
        parent = draw(st.sampled_from(directories))
        path = f"{parent}/{name}" if parent else name
        found[path] = draw(
            st.one_of(
                FILES,
                st.none(),
                st.builds(
                    lambda text, count: text * count,
                    st.sampled_from(["a/", "../é"]),
                    st.integers(1, 500),
                ),
            )
        )
        if found[path] is None:
            directories.append(path)
    return found


def filled(content: dict[str, bytes | str | None]) -> Tree:
    tree = Tree()
    for path, value in content.items():
        match value:
            case None:
                tree.directory(path, 0o750)
            case str():
                tree.symlink(path, value)
            case bytes():
                tree.file(path, value, 0o640)
    return tree


def image_of(tree: Tree) -> bytes:
    output = io.BytesIO()
    size = write_erofs(tree, output, mtime=TIME)
    assert size == len(output.getvalue())
    return output.getvalue()


def read_directory(root: Path) -> dict[str, bytes | str | None]:
    found: dict[str, bytes | str | None] = {}
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        name = str(path.relative_to(root))
        if stat.S_ISLNK(mode):
            found[name] = os.readlink(path)
        elif stat.S_ISDIR(mode):
            found[name] = None
        else:
            found[name] = path.read_bytes()
    return found


def checked(image: bytes, directory: Path) -> Path:
    """Have fsck.erofs check and extract `image`; where to."""
    program = need_tool("fsck.erofs")
    (directory / "image").write_bytes(image)
    target = directory / "tree"
    result = subprocess.run(
        [program, "--no-preserve-owner", f"--extract={target}", str(directory / "image")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return target


@settings(max_examples=25)
@given(trees())
def test_any_tree_is_what_fsck_extracts(content: dict[str, bytes | str | None]) -> None:
    with filled(content) as tree, tempfile.TemporaryDirectory() as directory:
        extracted = checked(image_of(tree), Path(directory))

        assert read_directory(extracted) == content


@settings(max_examples=10)
@given(st.integers(1, 400), st.integers(1, 200))
def test_directory_of_many_names_is_found_again(count: int, length: int) -> None:
    # "-" and "!" sort before ".", and have to stand before it.
    names = {f"{'!-az'[i % 4]}{i:04}".ljust(length, "x"): b"" for i in range(count)}
    with filled({**names}) as tree, tempfile.TemporaryDirectory() as directory:
        extracted = checked(image_of(tree), Path(directory))

        assert sorted(os.listdir(extracted)) == sorted(names)


def test_same_tree_makes_the_same_bytes() -> None:
    content: dict[str, bytes | str | None] = {"b": b"2", "a": b"1", "c": None, "c/d": "../a"}
    with filled(content) as first, filled(dict(sorted(content.items()))) as second:
        assert image_of(first) == image_of(second)


def test_name_that_linux_cannot_have_is_an_error() -> None:
    with Tree() as tree:
        tree.file("x" * 256, b"")

        with pytest.raises(Unsupported, match="longer than 255 bytes"):
            image_of(tree)
