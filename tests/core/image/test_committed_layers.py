"""A container's writable directory becomes a layer, packed and unpacked."""

from __future__ import annotations

import io
import os
import socket
import stat
import sys
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if sys.platform != "linux":
    pytest.skip("layers are committed on Linux", allow_module_level=True)

from wherry.errors import CorruptState
from wherry.image.commit import PackedLayer, make_layer
from wherry.image.difference import ADDED, DELETED, MODIFIED, changes
from wherry.image.layers import layer_path
from wherry.image.streams import write_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.linux


class Trees:
    """The writable directory of a container, and what is below it."""

    def __init__(self, directory: Path) -> None:
        self.upper = directory / "upper"
        self.lower = directory / "lower"
        self.upper.mkdir(parents=True)
        self.lower.mkdir()

    def white_out(self, name: str) -> None:
        os.mknod(self.upper / name, stat.S_IFCHR, 0)

    def hide_below(self, name: str) -> None:
        os.setxattr(self.upper / name, "user.overlay.opaque", b"y")

    def diff(self, *unwanted: str) -> list[tuple[int, str]]:
        with self._open() as (upper, lower):
            found = changes(upper, lower, unwanted=frozenset(unwanted))
            return [(change.kind, change.path) for change in found]

    def pack(self) -> PackedLayer:
        with self._open() as (upper, lower):
            return make_layer(lambda: changes(upper, lower, as_layer=True))

    def stream(self) -> bytes:
        pieces: list[bytes] = []
        write_stream(self.pack().diff_id, pieces.append)
        return b"".join(pieces)

    def members(self) -> dict[str, tarfile.TarInfo]:
        with tarfile.open(fileobj=io.BytesIO(self.stream())) as archive:
            return {member.name: member for member in archive}

    def _open(self) -> _Open:
        return _Open(self.upper, self.lower)


class _Open:
    def __init__(self, *paths: Path) -> None:
        self.paths = paths

    def __enter__(self) -> list[int]:
        self.descriptors = [os.open(path, os.O_RDONLY) for path in self.paths]
        return self.descriptors

    def __exit__(self, *_: object) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


@pytest.fixture
def trees(own_world: Path) -> Iterator[Trees]:
    yield Trees(own_world / "trees")


def test_each_kind_of_change_is_told(trees: Trees) -> None:
    for name in ("same", "content", "mode", "time", "gone"):
        for tree in (trees.lower, trees.upper):
            (tree / name).write_text("x")
            os.utime(tree / name, (1, 1))
    (trees.upper / "gone").unlink()
    trees.white_out("gone")
    (trees.upper / "content").write_text("longer")
    (trees.upper / "mode").chmod(0o600)
    os.utime(trees.upper / "time", ns=(1, 1_000_000_001))
    (trees.upper / "new").symlink_to("same")

    assert trees.diff() == [
        (MODIFIED, "content"),
        (DELETED, "gone"),
        (MODIFIED, "mode"),
        (ADDED, "new"),
        (MODIFIED, "time"),
    ]


def test_a_directory_is_told_of_when_something_within_has_changed(trees: Trees) -> None:
    for tree in (trees.lower, trees.upper):
        (tree / "a/b/c").mkdir(parents=True)
        (tree / "other").mkdir()
    (trees.upper / "a/b/c/new").touch()

    assert trees.diff() == [
        (MODIFIED, "a"),
        (MODIFIED, "a/b"),
        (MODIFIED, "a/b/c"),
        (ADDED, "a/b/c/new"),
    ]


def test_a_directory_that_hides_what_is_below_is_compared_with_it(trees: Trees) -> None:
    (trees.lower / "dir/sub").mkdir(parents=True)
    for tree in (trees.lower, trees.upper):
        (tree / "dir").mkdir(exist_ok=True)
        (tree / "dir/kept").touch()
        os.utime(tree / "dir/kept", (1, 1))
    trees.hide_below("dir")

    assert trees.diff() == [(MODIFIED, "dir"), (DELETED, "dir/sub")]
    assert sorted(trees.members()) == ["dir", "dir/.wh..wh..opq", "dir/kept"]


@pytest.mark.parametrize("becomes", ["file", "link"])
def test_what_takes_the_place_of_a_directory_is_one_change(trees: Trees, becomes: str) -> None:
    (trees.lower / "name/within").mkdir(parents=True)
    if becomes == "file":
        (trees.upper / "name").touch()
    else:
        (trees.upper / "name").symlink_to("elsewhere")

    assert trees.diff() == [(MODIFIED, "name")]


def test_empty_places_of_mounts_are_no_changes(trees: Trees) -> None:
    (trees.upper / "run/secrets").mkdir(parents=True)
    (trees.upper / "run/secrets/key").touch()
    (trees.upper / "etc").mkdir()
    (trees.upper / "etc/hosts").touch()
    (trees.upper / "etc/hostname").write_text("written to")

    found = trees.diff("run/secrets/key", "etc/hosts", "etc/hostname", "proc")

    assert found == [(ADDED, "etc"), (ADDED, "etc/hostname")]


def test_the_layer_holds_what_the_files_are(trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    file = trees.upper / "file"
    file.write_bytes(b"12345")
    os.setxattr(file, "user.note", b"kept")
    os.setxattr(file, "user.overlay.origin", b"not kept")
    os.link(file, trees.upper / "hard")
    os.mkfifo(trees.upper / "pipe")
    (trees.upper / "lnk").symlink_to("/file")
    file.chmod(0o640)
    os.utime(file, ns=(5, 1_500_000_000_123_456_789))
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(trees.upper)
        listener.bind("socket")

    members = trees.members()

    assert sorted(members) == ["file", "hard", "lnk", "pipe"]
    assert members["file"].pax_headers["mtime"] == "1500000000.123456789"
    assert members["file"].pax_headers["SCHILY.xattr.user.note"] == "kept"
    assert not any("overlay" in key for key in members["file"].pax_headers)
    assert (members["file"].mode, members["file"].size) == (0o640, 5)
    assert (members["hard"].type, members["hard"].linkname) == (tarfile.LNKTYPE, "file")
    assert (members["lnk"].type, members["lnk"].linkname) == (tarfile.SYMTYPE, "/file")
    assert members["pipe"].type == tarfile.FIFOTYPE


def test_a_name_that_layers_have_no_way_to_say_is_left_out_and_told_of(trees: Trees) -> None:
    (trees.upper / ".wh.odd").touch()
    (trees.upper / "even").touch()

    packed = trees.pack()

    assert packed.count == 1
    assert packed.warnings == ["/.wh.odd is left out: a layer has no such names"]


def test_the_layer_is_unpacked_at_once_and_as_it_was(trees: Trees) -> None:
    (trees.lower / "gone").touch()
    trees.white_out("gone")
    (trees.lower / "dir").mkdir()
    (trees.upper / "dir").mkdir()
    trees.hide_below("dir")
    (trees.upper / "dir" / os.fsdecode(b"not utf-8 \xff")).write_text("x")

    packed = trees.pack()

    unpacked = Path(layer_path(packed.diff_id))
    assert sorted(os.listdir(unpacked)) == ["dir", "gone"]
    assert stat.S_ISCHR((unpacked / "gone").lstat().st_mode)
    assert os.getxattr(unpacked / "dir", "user.overlay.opaque") == b"y"
    assert os.listdir(os.fsencode(unpacked / "dir")) == [b"not utf-8 \xff"]
    assert [each for each in os.listdir(unpacked.parents[1]) if "." in each] == []


def test_the_same_files_make_the_same_layer(trees: Trees) -> None:
    for name in ("b", "a", "c/d"):
        (trees.upper / name).parent.mkdir(exist_ok=True)
        (trees.upper / name).write_text(name * 1000)

    first, second = trees.pack(), trees.pack()

    assert first == second


def test_the_stream_is_put_together_again_of_the_files(trees: Trees) -> None:
    content = os.urandom(5_000_001)
    (trees.upper / "large").write_bytes(content)
    with open(trees.upper / "holes", "wb") as file:
        file.seek(3_000_000)
        file.write(b"end")
    (trees.upper / "small").write_text("x")

    stream = trees.stream()

    unpacked = Path(layer_path(f"sha256:{sha256(stream).hexdigest()}"))
    assert (unpacked / "large").read_bytes() == content
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        large, holes = archive.extractfile("large"), archive.extractfile("holes")
        assert large is not None and large.read() == content
        assert holes is not None and holes.read() == bytes(3_000_000) + b"end"


def test_a_layer_whose_files_have_changed_has_no_stream(trees: Trees) -> None:
    (trees.upper / "file").write_text("x")
    packed = trees.pack()
    (Path(layer_path(packed.diff_id)) / "file").write_text("y")

    with pytest.raises(CorruptState, match="not what they were"):
        write_stream(packed.diff_id, len)


def test_what_changed_nothing_is_no_layer(trees: Trees) -> None:
    for tree in (trees.lower, trees.upper):
        (tree / "dir").mkdir()

    assert trees.pack().count == 0


def test_a_file_that_vanishes_while_it_is_told_of_is_left_out(trees: Trees) -> None:
    for name in ("a", "b", "c"):
        (trees.upper / name).touch()
    told = []
    with trees._open() as (upper, lower):
        for change in changes(upper, lower):
            told.append(change.path)
            (trees.upper / "b").unlink(missing_ok=True)

    assert told == ["a", "c"]


class Contents:
    """Tells what large files hold until they are changed: after so many questions."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def digest(self, descriptor: int, /) -> str:
        return sha256(os.pread(descriptor, os.fstat(descriptor).st_size, 0)).hexdigest()

    def known(self, descriptor: int, /) -> str:
        self.left -= 1
        return self.digest(descriptor) if self.left >= 0 else ""


def test_a_layer_is_told_by_its_outline(trees: Trees) -> None:
    (trees.upper / "small").write_bytes(b"small")
    (trees.upper / "large").write_bytes(bytes(2 << 20))

    def pack() -> PackedLayer:
        with trees._open() as (upper, lower):
            return make_layer(
                lambda: changes(upper, lower, as_layer=True), contents=Contents(questions=2)
            )

    first, again = pack(), pack()
    (trees.upper / "small").write_bytes(b"other")
    os.utime(trees.upper / "small", (1, 1))
    other = pack()

    assert first.outline
    assert (again.outline, again.diff_id) == (first.outline, first.diff_id)
    assert other.outline != first.outline
    assert trees.pack().outline == ""


@pytest.mark.parametrize("questions", [0, 1])
def test_a_layer_has_no_outline_where_a_file_was_changed_under_it(
    trees: Trees, questions: int
) -> None:
    (trees.upper / "large").write_bytes(bytes(2 << 20))

    with trees._open() as (upper, lower):
        made = make_layer(
            lambda: changes(upper, lower, as_layer=True), contents=Contents(questions)
        )

    assert made.outline == ""
