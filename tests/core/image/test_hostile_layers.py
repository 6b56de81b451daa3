"""A layer's author may mean harm: nothing outside of the layer changes, and nothing is left."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from support.layers import DIRECTORY, FIFO, LINK, SYMLINK, entry, layer, unpack
from wherry import paths
from wherry.errors import CorruptState
from wherry.image import layers
from wherry.image.decompress import decompressed
from wherry.image.layers import StoredLayer, layer_directory
from wherry.image.tar import BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.layers import Entry
    from wherry.image.store import ImageStore
    from wherry.oci.image_spec import Descriptor

pytestmark = pytest.mark.skipif(os.name != "posix", reason="layers are unpacked on Linux")


def link(name: str, target: str) -> Entry:
    return entry(name, kind=SYMLINK, linkname=target)


def hard(name: str, target: str) -> Entry:
    return entry(name, kind=LINK, linkname=target)


OUTSIDE = "{outside}"  # stands for the directory beside the layer, absolute
TRAVERSALS: dict[str, list[Entry]] = {
    "parent": [entry("../outside/victim", b"evil")],
    "parent in the middle": [entry("a/../../outside/victim", b"evil")],
    "parent at the end": [entry("a/..", kind=DIRECTORY, mode=0o777)],
    "absolute and parent": [entry("/../outside/victim", b"evil")],
    "link to an absolute directory": [link("a", OUTSIDE), entry("a/victim", b"evil")],
    "link to a parent": [link("a", "../outside"), entry("a/victim", b"evil")],
    "link to a link": [link("a", ".."), link("b", "a/outside"), entry("b/victim", b"evil")],
    "link below a directory": [link("d/a", "../../outside"), entry("d/a/victim", b"evil")],
    "directory swapped for a link": [
        entry("a", kind=DIRECTORY),
        entry("a/first", b"1"),
        link("a", OUTSIDE),
        entry("a/victim", b"evil"),
    ],
    "new name through a link": [link("a", OUTSIDE), entry("a/new/file", b"evil")],
    "directory through a link": [link("a", OUTSIDE), entry("a/new", kind=DIRECTORY)],
    "fifo through a link": [link("a", OUTSIDE), entry("a/new", kind=FIFO)],
    "link through a link": [link("a", OUTSIDE), link("a/new", "x")],
    "whiteout through a link": [link("a", OUTSIDE), entry("a/.wh.victim")],
    "opaque through a link": [link("a", OUTSIDE), entry("a/.wh..wh..opq")],
    "whiteout of a parent": [entry(".wh...")],
    "whiteout of nothing": [entry("a/.wh.")],
    "whiteout of itself": [entry("a/.wh..")],
    "hard link to a parent": [hard("a", "../outside/victim")],
    "hard link to an absolute name": [hard("a", f"{OUTSIDE}/victim")],
    "hard link through a link": [link("a", OUTSIDE), hard("b", "a/victim")],
    "hard link to nothing": [hard("a", "missing")],
    "hard link to a directory": [entry("d", kind=DIRECTORY), hard("a", "d")],
    "hard link to the root": [hard("a", ".")],
    "link to a magic link": [link("a", "/proc/self/cwd"), entry("a/new", b"evil")],
    "link to itself": [link("a", "a"), entry("a/new", b"evil")],
    "file below a dangling link": [link("a", "missing"), entry("a/new", b"evil")],
}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "victim").write_bytes(b"untouched")
    return outside


def state(directory: Path) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for path in (directory, *sorted(directory.iterdir())):
        one = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found.append((path.name, one.st_mode, one.st_nlink, one.st_mtime_ns, content))
    return found


@pytest.mark.parametrize("attack", TRAVERSALS)
def test_layer_cannot_leave_its_root(tmp_path: Path, outside: Path, attack: str) -> None:
    entries = TRAVERSALS[attack]
    for member, _ in entries:
        member.linkname = member.linkname.replace(OUTSIDE, str(outside))
    before = state(outside)
    root = tmp_path / "root"
    root.mkdir()

    with pytest.raises(CorruptState) as caught:
        unpack(root, *entries)

    assert state(outside) == before
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "entries",
    [
        [entry("/etc/passwd", b"mine")],
        [link("victim", "../outside/victim"), entry("victim", b"mine")],
        [link("victim", "../outside"), entry("victim", kind=DIRECTORY, mode=0o700)],
        [link("victim", "../outside"), entry("victim/.", kind=DIRECTORY, mode=0o700)],
        [link("a", "../outside/victim"), hard("b", "a"), entry("b", b"mine")],
    ],
    ids=[
        "absolute name",
        "file in place of a link",
        "directory in place of a link",
        "its dot",
        "linked link",
    ],
)
def test_what_looks_like_a_way_out_stays_inside(
    tmp_path: Path, outside: Path, entries: list[Entry]
) -> None:
    before = state(outside)
    root = tmp_path / "root"
    root.mkdir()

    unpack(root, *entries)

    assert state(outside) == before


@pytest.mark.parametrize("key", ["path", "linkpath", "SCHILY.xattr.user.a\0b"])
def test_null_bytes_are_refused(tmp_path: Path, key: str) -> None:
    kind = SYMLINK if key == "linkpath" else tarfile.REGTYPE
    with pytest.raises(CorruptState, match="malformed"):
        unpack(tmp_path, entry("a", kind=kind, linkname="b", pax={key: "x\0y"}))


@pytest.mark.parametrize(
    "pax",
    [
        {"uid": str(2**70)},
        {"uid": "-1"},
        {"gid": "4294967295"},
        {"size": "-5"},
        {"size": "many"},
        {"mtime": "9" * 40},
        {"mtime": "nan"},
        {"LIBARCHIVE.xattr.user.a": "a"},
        {"GNU.sparse.major": "1"},
    ],
    ids=str,
)
def test_impossible_values_are_refused(tmp_path: Path, pax: dict[str, str]) -> None:
    with pytest.raises(CorruptState):
        unpack(tmp_path, entry("a", pax=pax))


def block(name: str = "a", **fields: bytes) -> bytes:
    """One header, some of its fields as given and its checksum made anew."""
    header = bytearray(layer(entry(name, b""), form=tarfile.USTAR_FORMAT)[:BLOCK])
    places = {"mode": (100, 8), "uid": (108, 8), "size": (124, 12), "type": (156, 1)}
    for key, content in fields.items():
        start, length = places[key]
        header[start : start + length] = content.ljust(length, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize(
    "raw",
    [
        b"this is no tar" * 100,
        b"\0" * 100,
        block()[:300],
        block(size=b"00000001000"),
        block(size=b"-0000000005"),
        block(size=b"\xff" * 12),
        block(size=b"\xff" * 12, type=b"x"),
        block(size=b"77777777777", type=b"L"),
        block(mode=b"abc"),
        block(uid=b"-1"),
        block(type=b"S"),
        block(type=b"M"),
        block(type=b"\xff"),
        block(size=b"00000000010", type=b"x") + b"99 path=".ljust(BLOCK, b"\0"),
        block(size=b"00000000010", type=b"x") + b"0 path=a".ljust(BLOCK, b"\0"),
        bytes(range(256)) * 2,
    ],
)
def test_what_is_no_tar_is_one_clear_error(tmp_path: Path, raw: bytes) -> None:
    with pytest.raises(CorruptState):
        unpack(tmp_path, raw=raw)

    assert os.listdir(tmp_path) in ([], ["a"])


@pytest.mark.parametrize("pack", ["gzip", "xz", "bzip2", "zstd"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damaged_compression_is_one_clear_error(pack: str, damage: str) -> None:
    packed = bytearray(compressors()[pack](layer(entry("a", os.urandom(100_000)))))
    if damage == "cut":
        del packed[len(packed) // 2 :]
    else:
        packed[100:200] = bytes(100)
    content = b""
    failure = None
    try:
        content = b"".join(decompressed(io.BytesIO(packed).read))
    except CorruptState as error:
        failure = error
    # zstd does not tell that it was cut: then the tar or the digest does.
    assert failure or (pack == "zstd" and len(content) < 100_000)


@pytest.mark.parametrize("pack", ["gzip", "xz", "bzip2", "zstd"])
def test_what_grows_without_end_comes_in_small_pieces(pack: str) -> None:
    packed = compressors()[pack](bytes(64 << 20))

    largest = max(len(piece) for piece in decompressed(io.BytesIO(packed).read))

    assert largest <= 1 << 20


@pytest.mark.parametrize("pack", ["gzip", "xz", "bzip2", "zstd"])
def test_several_streams_in_one_are_read_as_one(pack: str) -> None:
    compress = compressors()[pack]
    padding = b"" if pack == "zstd" else bytes(512)

    packed = compress(b"one") + compress(b"two") + padding

    assert b"".join(decompressed(io.BytesIO(packed).read)) == b"onetwo"


def compressors() -> dict[str, Callable[[bytes], bytes]]:
    import bz2
    import lzma

    import zstandard

    return {
        "gzip": gzip.compress,
        "xz": lzma.compress,
        "bzip2": bz2.compress,
        "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    }


# ---- whole layers ----


def stored(store: ImageStore, content: bytes, diff_id: str = "") -> StoredLayer:
    digest = store.put_blob(content)
    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    diff_id = diff_id or f"sha256:{hashlib.sha256(plain).hexdigest()}"
    media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    return StoredLayer(
        store, {"mediaType": media_type, "digest": digest, "size": len(content)}, diff_id
    )


def left_over() -> list[str]:
    directory = f"{paths.layers()}/sha256"
    return os.listdir(directory) if os.path.isdir(directory) else []


def test_layer_with_another_diff_id_is_refused_and_gone(store: ImageStore) -> None:
    one = stored(store, layer(entry("a", b"1")), f"sha256:{'0' * 64}")

    with pytest.raises(CorruptState, match="but its image says"):
        layers.unpack([one], lambda function: function())

    assert left_over() == []


@pytest.mark.parametrize("attack", ["link to a parent", "hard link to nothing"])
def test_nothing_is_left_of_a_hostile_layer(store: ImageStore, attack: str) -> None:
    one = stored(store, gzip.compress(layer(entry("good", b"1"), *TRAVERSALS[attack])))

    with pytest.raises(CorruptState):
        layers.unpack([one], lambda function: function())

    assert left_over() == []


def test_layer_that_is_cut_short_is_refused_and_gone(store: ImageStore) -> None:
    whole = gzip.compress(layer(entry("a", os.urandom(50_000))))
    digest = store.put_blob(whole[:30_000])
    descriptor: Descriptor = {"mediaType": "application/x", "digest": digest, "size": 30_000}
    one = StoredLayer(store, descriptor, f"sha256:{'1' * 64}")

    with pytest.raises(CorruptState, match="ends in the middle"):
        layers.unpack([one], lambda function: function())

    assert left_over() == []


@pytest.mark.parametrize("draft_of", ["", ".4711"])
def test_what_a_killed_process_left_is_replaced(store: ImageStore, draft_of: str) -> None:
    one = stored(store, layer(entry("a", b"1")))
    draft = f"{layer_directory(one.diff_id)}{draft_of}.tmp"
    os.makedirs(f"{draft}/diff/half")
    with open(f"{layer_directory(one.diff_id)}.lock", "w"):
        pass

    layers.unpack([one], lambda function: function())

    assert left_over() == [one.diff_id.removeprefix("sha256:")]
    assert os.listdir(layers.layer_path(one.diff_id)) == ["a"]
    assert layers.layer_size(one.diff_id) == 1


@pytest.mark.parametrize(
    "diff_id",
    [
        "sha256:../../../../outside",
        f"sha256:{'A' * 64}",
        "",
        "sha256:",
        f"md5:{'0' * 64}",
        f"sha256:{'0' * 63}/",
    ],
)
def test_diff_id_is_never_a_path(store: ImageStore, diff_id: str) -> None:
    one = stored(store, layer(entry("a", b"1")))
    one.diff_id = diff_id

    with pytest.raises(CorruptState, match="malformed diff id"):
        layers.unpack([one], lambda function: function())

    assert left_over() == []
