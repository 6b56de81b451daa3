"""Archives made to do harm: one clear error, nothing outside touched, nothing kept."""

from __future__ import annotations

import io
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from support.registry import digest_of
from wherry.engine.images import Images
from wherry.errors import CorruptState, WherryError
from wherry.image.store import ImageStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Entry = tuple[str, bytes]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def tar(*members: Entry | tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for each in members:
            if isinstance(each, tarfile.TarInfo):
                archive.addfile(each)
                continue
            member = tarfile.TarInfo(each[0])
            member.size = len(each[1])
            archive.addfile(member, io.BytesIO(each[1]))
    return buffer.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def dump(document: Any) -> bytes:
    return json.dumps(document).encode()


LAYER = tar(("hello", b"hi"))
OTHER = tar(("other", b"not what was promised"))


def config_of(*diff_ids: Any) -> dict[str, Any]:
    return {"os": "linux", "rootfs": {"type": "layers", "diff_ids": list(diff_ids)}}


def described(content: bytes, media_type: str = MANIFEST, **more: Any) -> dict[str, Any]:
    base = {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}
    return {**base, **more}


def blob(content: bytes) -> Entry:
    return f"blobs/sha256/{digest_of(content).removeprefix('sha256:')}", content


def docker(entry: Any, *files: Entry | tarfile.TarInfo, config: Any = None) -> bytes:
    return tar(
        *(files or [("layer.tar", LAYER)]),
        ("config.json", dump(config_of(digest_of(LAYER)) if config is None else config)),
        ("manifest.json", dump([entry])),
    )


def layout(*entries: Any, blobs: Sequence[Entry | tarfile.TarInfo]) -> bytes:
    return tar(
        ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        *blobs,
        ("index.json", dump({"schemaVersion": 2, "manifests": list(entries)})),
    )


GOOD = {"Config": "config.json", "RepoTags": ["one:1"], "Layers": ["layer.tar"]}
CONFIG = dump(config_of(digest_of(LAYER)))
PARTS = {"config": described(CONFIG), "layers": [described(LAYER)]}
IMAGE = dump({"schemaVersion": 2, **PARTS})
WHOLE = [blob(LAYER), blob(CONFIG), blob(IMAGE)]


def nested(depth: int) -> bytes:
    content, blobs = IMAGE, list(WHOLE)
    for _ in range(depth):
        content = dump({"manifests": [described(content)]})
        blobs.append(blob(content))
    return layout(described(content, INDEX), blobs=blobs)


BAD = {
    "a digest that is not the content's": layout(
        described(IMAGE), blobs=[blob(LAYER), blob(CONFIG), (blob(IMAGE)[0], b"{}")]
    ),
    "a blob that is a link": layout(
        described(IMAGE), blobs=[blob(CONFIG), blob(IMAGE), link(blob(LAYER)[0], "/etc/passwd")]
    ),
    "a blob that is a link out of the archive": layout(
        described(IMAGE),
        blobs=[blob(CONFIG), blob(IMAGE), link(blob(LAYER)[0], "../../../../../../etc/passwd")],
    ),
    "a missing layer": layout(described(IMAGE), blobs=[blob(CONFIG), blob(IMAGE)]),
    "a missing config": layout(described(IMAGE), blobs=[blob(LAYER), blob(IMAGE)]),
    "a missing manifest": layout(described(IMAGE), blobs=[blob(LAYER), blob(CONFIG)]),
    "a size that is not the blob's": layout(described(IMAGE, size=1), blobs=WHOLE),
    "no size": layout({"digest": digest_of(IMAGE)}, blobs=WHOLE),
    "an empty index": layout(blobs=WHOLE),
    "an index of nothing": layout(
        described(dump({"manifests": []}), INDEX), blobs=[blob(dump({"manifests": []}))]
    ),
    "indexes without end": nested(30),
    "a manifest that is a list": layout(described(b"[]"), blobs=[blob(b"[]")]),
    "a manifest of numbers": layout(
        described(dump({"config": 1, "layers": 2})), blobs=[blob(dump({"config": 1, "layers": 2}))]
    ),
    "a digest that is a path": layout({"digest": "sha256:../../../x", "size": 1}, blobs=WHOLE),
    "a digest that is no text": layout({"digest": 5, "size": 1}, blobs=WHOLE),
    "deep JSON": tar(("oci-layout", b"{}"), ("index.json", b"[" * 200_000)),
    "a huge manifest": tar(("manifest.json", b"[" + b" " * (17 << 20) + b"]")),
    "a layer of another name": docker({**GOOD, "Layers": ["/etc/passwd"]}),
    "a layer above the archive": docker({**GOOD, "Layers": ["../../../etc/passwd"]}),
    "a layer that is a link out of the archive": docker(GOOD, link("layer.tar", "/etc/passwd")),
    "a layer that is a hard link out of the archive": docker(
        GOOD, link("layer.tar", "/etc/passwd", tarfile.LNKTYPE)
    ),
    "links in a circle": docker(GOOD, link("layer.tar", "b"), link("b", "layer.tar")),
    "layers that are no list": docker({**GOOD, "Layers": {"layer.tar": 1}}),
    "layers that are numbers": docker({**GOOD, "Layers": [1]}),
    "a config that is no text": docker({**GOOD, "Config": ["config.json"]}),
    "tags that are no text": docker({**GOOD, "RepoTags": [None]}),
    "a name that is none": docker({**GOOD, "RepoTags": ["../../UPPER"]}),
    "a config without layers": docker(GOOD, config={}),
    "a config that is a list": docker(GOOD, config=[]),
    "diff ids that are numbers": docker(GOOD, config=config_of(1)),
    "a diff id that is a path": docker(GOOD, config=config_of("sha256:../../../victim")),
    "a diff id that is nearly a path": docker(GOOD, config=config_of("sha256:" + "../" * 21 + "x")),
    "another layer than is promised": docker(GOOD, ("layer.tar", OTHER)),
    "a layer that reaches out": docker(
        GOOD,
        ("layer.tar", tar(("../../../escaped", b"x"))),
        config=config_of(digest_of(tar(("../../../escaped", b"x")))),
    ),
}


@pytest.fixture
def images(own_world: Path) -> Images:
    return Images(ImageStore(), lambda function: function(), list, set)


def files_below(directory: Path) -> set[str]:
    return {
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and path.name not in ("lock", "held", "oci-layout", "index.json")
    }


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_it_is_one_error_and_leaves_nothing(
    images: Images, own_world: Path, content: bytes
) -> None:
    victim = own_world / "root" / "data" / "victim.tmp"
    victim.mkdir(parents=True)
    (victim / "file").write_text("still here")
    source = io.BytesIO(content)

    with pytest.raises(WherryError) as caught:
        images.load(source.read)

    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300
    assert images.list() == []
    assert files_below(own_world) == {"root/data/victim.tmp/file"}
    assert not os.listdir(own_world / "root/data/images/partial")


def test_a_file_that_comes_twice_is_what_it_was_last(images: Images) -> None:
    """Nothing may be written over a file whose digest is known already."""
    content = docker(GOOD, ("layer.tar", OTHER), ("layer.tar", LAYER), ("x", OTHER), ("y", b"z"))
    source = io.BytesIO(content)

    images.load(source.read)

    for image in images.store.images():
        for layer in image.manifest["layers"]:
            images.store.read_blob(layer["digest"])
    assert images.inspect("one:1")["Size"] == 2


def test_what_an_archive_has_beside_its_images_is_not_kept(images: Images) -> None:
    stray = blob(b"stray")
    source = io.BytesIO(layout(described(IMAGE), blobs=[*WHOLE, stray]))

    images.load(source.read)

    kept = os.listdir(f"{images.store.root}/blobs/sha256")
    assert sorted(kept) == sorted(name.rpartition("/")[2] for name, _ in WHOLE)


def test_an_image_that_was_there_survives_a_bad_archive_of_its_name(images: Images) -> None:
    source = io.BytesIO(docker(GOOD))
    images.load(source.read)
    before = images.inspect("one:1")
    bad = io.BytesIO(docker(GOOD, ("layer.tar", OTHER)))

    with pytest.raises(CorruptState):
        images.load(bad.read)

    assert images.inspect("one:1") == before
