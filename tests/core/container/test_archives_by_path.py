"""Trees as tar streams where there are no directory descriptors, as on Windows."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from wherry.container.archive_by_path import pack, unpack
from wherry.errors import CorruptState, UsageError, WherryError

if TYPE_CHECKING:
    from pathlib import Path

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="makes links without a privilege")


def packed(directory: Path, name: str, called: str) -> bytes:
    out = io.BytesIO()
    pack(str(directory), name, out, called)
    return out.getvalue()


def archive(*entries: tuple[str, str, str]) -> io.BytesIO:
    """A tar stream of (name, kind, what is in it or linked to)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, content in entries:
            entry = tarfile.TarInfo(name)
            if kind == "file":
                entry.size = len(content)
            elif kind == "directory":
                entry.type = tarfile.DIRTYPE
            else:
                entry.type = tarfile.SYMTYPE if kind == "link" else tarfile.LNKTYPE
                entry.linkname = content
            tar.addfile(entry, io.BytesIO(content.encode()) if kind == "file" else None)
    out.seek(0)
    return out


@on_posix
def test_a_tree_comes_out_as_it_went_in(tmp_path: Path) -> None:
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").write_bytes(b"content\x00" * 1000)
    (tree / "empty").touch()
    (tree / "link").symlink_to("a/file")
    os.utime(tree / "a" / "file", (1_700_000_000, 1_700_000_000))
    copy.mkdir()

    unpack(io.BytesIO(packed(tmp_path, "tree", "called")), str(copy))
    unpack(io.BytesIO(packed(tmp_path, "tree", "called")), str(copy))

    there = copy / "called"
    assert sorted(each.name for each in there.rglob("*")) == ["a", "b", "empty", "file", "link"]
    assert (there / "a" / "file").read_bytes() == b"content\x00" * 1000
    assert (there / "a" / "file").stat().st_mtime == 1_700_000_000
    assert os.readlink(there / "link") == "a/file"


def test_the_contents_of_a_directory_go_without_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path, ".", "."))) as tar:
        assert tar.getnames() == [".", "./file"]
        assert {entry.mode for entry in tar} == {0o755}


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "..\\evil", "C:\\evil", "C:evil", "file:stream"]
)
def test_a_path_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    place = tmp_path / "place"
    place.mkdir()

    with pytest.raises(UsageError, match="leads out of it"):
        unpack(archive((name, "file", "x")), str(place))

    assert [each.name for each in tmp_path.rglob("*")] == ["place"]


@on_posix
def test_a_link_of_the_archive_leads_nowhere(tmp_path: Path) -> None:
    place, outside = tmp_path / "place", tmp_path / "outside"
    place.mkdir()
    outside.mkdir()
    (outside / "file").write_text("kept")

    unpack(
        archive(
            ("way", "link", str(outside)),
            ("way/evil", "file", "x"),
            ("file", "link", str(outside / "file")),
            ("file", "file", "mine"),
        ),
        str(place),
    )
    with pytest.raises(WherryError, match="cannot write stolen"):
        unpack(archive(("up", "link", str(outside)), ("stolen", "hardlink", "up/file")), str(place))

    assert [each.name for each in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "kept"
    assert (place / "way" / "evil").read_text() == "x"
    assert (place / "file").read_text() == "mine"


def test_files_and_directories_do_not_take_each_others_place(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match='overwrite directory "directory" with non-directory'):
        unpack(archive(("directory", "file", "x")), str(tmp_path))
    with pytest.raises(UsageError, match='overwrite non-directory "file" with directory'):
        unpack(archive(("file", "directory", "")), str(tmp_path))


def test_what_is_no_archive_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorruptState, match="cannot read the tar archive"):
        unpack(io.BytesIO(b"nonsense" * 100), str(tmp_path))
