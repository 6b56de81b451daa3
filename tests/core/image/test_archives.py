"""Images as one file: in docker's format and as an OCI layout, compressed, through a pipe."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from wherry.engine.images import Images
from wherry.errors import CorruptState
from wherry.image.store import ImageStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

from support.registry import digest_of


def tar(*members: tuple[str, bytes], links: tuple[tuple[str, str], ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return buffer.getvalue()


LAYER = tar(("hello", b"hi"))


def config_of(*layers: bytes) -> bytes:
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
    ).encode()


def docker_archive(**changes: Any) -> bytes:
    entry = {"Config": "c.json", "RepoTags": ["one:1"], "Layers": ["x/layer.tar"], **changes}
    return tar(
        ("x/layer.tar", LAYER),
        ("c.json", config_of(LAYER)),
        ("manifest.json", json.dumps([entry]).encode()),
    )


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Images:
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path))
    return Images(ImageStore(), lambda function: function(), list, set)


def load(images: Images, content: bytes) -> list[str]:
    """Load through something that gives little at a time, as a pipe does."""
    source = io.BytesIO(content)
    loaded = images.load(lambda size: source.read(min(size, 1000)))
    return [name for image in loaded for name in image.references]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_dockers_archive_is_loaded_and_unpacked(
    images: Images, pack: Callable[[bytes], bytes]
) -> None:
    assert load(images, pack(docker_archive())) == ["docker.io/library/one:1"]
    assert images.inspect("one:1")["Size"] == 2


def test_layers_may_be_links_and_may_come_twice(images: Images) -> None:
    entry = {"Config": "c.json", "RepoTags": ["one:1"], "Layers": ["x/layer.tar", "y/layer.tar"]}
    content = tar(
        ("x/layer.tar", LAYER),
        ("c.json", config_of(LAYER, LAYER)),
        ("manifest.json", json.dumps([entry]).encode()),
        links=(("y/layer.tar", "../x/layer.tar"),),
    )

    assert load(images, content) == ["docker.io/library/one:1"]


def test_what_is_saved_is_loaded_again_the_same(images: Images) -> None:
    load(images, docker_archive())
    images.tag("one:1", "two/name:2")
    saved: list[bytes] = []
    images.save(["one:1", "two/name:2"], saved.append)
    before = images.inspect("one:1")
    images.remove("one:1")
    images.remove("two/name:2")

    names = load(images, b"".join(saved))

    assert names == ["docker.io/library/one:1", "docker.io/two/name:2"]
    after = images.inspect("one:1")
    assert (after["Id"], after["RepoDigests"]) == (before["Id"], before["RepoDigests"])
    again: list[bytes] = []
    images.save(["one:1", "two/name:2"], again.append)
    assert again == saved


def test_an_image_saved_by_its_id_has_no_name(images: Images) -> None:
    load(images, docker_archive())
    saved: list[bytes] = []
    images.save([images.inspect("one:1")["Id"]], saved.append)
    images.remove("one:1")

    assert load(images, b"".join(saved)) == []
    assert [each["RepoTags"] for each in images.list()] == [[]]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the archive holds no image"),
        (b"junk" * 1000, "tar"),
        (docker_archive()[:3000], "ends in the middle"),
        (gzip.compress(docker_archive())[:-20], ""),
        (tar(("etc/passwd", b"x")), "the archive holds no image"),
        (docker_archive(Layers=["nope"]), "the archive has no nope, which it tells of"),
        (docker_archive(Layers=[]), "another number of layers than it says"),
        (tar(("manifest.json", b"{")), "manifest.json is damaged"),
        (tar(("manifest.json", b"{}")), "manifest.json is no list"),
        (tar(("manifest.json", b"[1]")), "an entry of the archive's manifest.json is damaged"),
        (
            tar(("oci-layout", b"{}"), ("index.json", b"[]")),
            "index.json of the archive has no proper manifests",
        ),
        (
            tar(("oci-layout", b"{}"), ("index.json", b"{}"), (f"blobs/sha256/{'0' * 64}", b"x")),
            "digest mismatch",
        ),
    ],
)
def test_a_damaged_archive_names_nothing(images: Images, content: bytes, told: str) -> None:
    with pytest.raises(CorruptState) as caught:
        load(images, content)

    assert told in caught.value.message
    assert images.list() == []


def test_a_layer_that_is_not_what_its_image_says_is_refused(images: Images) -> None:
    content = tar(
        ("x/layer.tar", LAYER),
        ("c.json", config_of(tar(("other", b"")))),
        (
            "manifest.json",
            json.dumps(
                [{"Config": "c.json", "RepoTags": ["one:1"], "Layers": ["x/layer.tar"]}]
            ).encode(),
        ),
    )

    with pytest.raises(CorruptState, match="but its image says"):
        load(images, content)
    assert images.list() == []


def test_a_name_in_an_archive_is_never_a_path(images: Images, tmp_path: Path) -> None:
    entry = {"Config": "../../c.json", "RepoTags": ["one:1"], "Layers": ["/../x/layer.tar"]}
    content = tar(
        ("/../x/layer.tar", LAYER),
        ("../../c.json", config_of(LAYER)),
        ("manifest.json", json.dumps([entry]).encode()),
    )

    try:
        load(images, content)
    except CorruptState:
        pass

    assert {each.name for each in tmp_path.iterdir()} <= {"data", "run"}
