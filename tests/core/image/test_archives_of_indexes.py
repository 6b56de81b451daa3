"""Archives of images for several platforms: an index stays whole, or what of it there is."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from support.registry import digest_of
from wherry.engine.images import Images
from wherry.errors import NotFound
from wherry.image.platform import host_platform
from wherry.image.store import ImageStore

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
HERE = host_platform().architecture
ELSEWHERE = "s390x"


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Layout:
    """An OCI image layout as it is built."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.entries: list[dict[str, Any]] = []

    def add(self, content: bytes, media_type: str = "", **more: Any) -> dict[str, Any]:
        self.blobs[digest_of(content)] = content
        return {
            "mediaType": media_type,
            "digest": digest_of(content),
            "size": len(content),
            **more,
        }

    def image(self, architecture: str) -> dict[str, Any]:
        layer = tar({"architecture": architecture.encode()})
        config = {
            "os": "linux",
            "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.add(json.dumps(config).encode()),
            "layers": [self.add(layer)],
        }
        platform = {"os": "linux", "architecture": architecture}
        return self.add(json.dumps(manifest).encode(), MANIFEST, platform=platform)

    def attestation(self) -> dict[str, Any]:
        manifest = {"config": self.add(b"{}"), "layers": [self.add(b'{"predicate":1}')]}
        platform = {"os": "unknown", "architecture": "unknown"}
        return self.add(json.dumps(manifest).encode(), MANIFEST, platform=platform)

    def index(self, *entries: dict[str, Any], name: str = "many:1") -> str:
        content = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
        descriptor = self.add(content, INDEX)
        descriptor["annotations"] = {"io.containerd.image.name": f"docker.io/library/{name}"}
        self.entries.append(descriptor)
        return str(descriptor["digest"])

    def forget(self, descriptor: dict[str, Any]) -> None:
        """Leave out a manifest, and all that it alone leads to."""
        manifest = json.loads(self.blobs.pop(descriptor["digest"]))
        for each in (manifest["config"], *manifest["layers"]):
            self.blobs.pop(each["digest"], None)

    def archive(self) -> bytes:
        return tar(
            {
                "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
                "index.json": json.dumps({"schemaVersion": 2, "manifests": self.entries}).encode(),
                **{
                    f"blobs/sha256/{digest.removeprefix('sha256:')}": content
                    for digest, content in self.blobs.items()
                },
            }
        )


@pytest.fixture
def images(own_world: Path) -> Images:
    return Images(ImageStore(), lambda function: function(), list, set)


@pytest.fixture
def layout() -> Layout:
    return Layout()


def load(images: Images, content: bytes, platform: str = "") -> list[str]:
    loaded = images.load(io.BytesIO(content).read, platform=platform)
    return [reference for image in loaded for reference in image.references]


def saved(images: Images, name: str, platform: str = "") -> dict[str, bytes]:
    pieces: list[bytes] = []
    images.save([name], pieces.append, platform=platform)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        return {
            member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
            if member.isfile()
        }


def test_an_index_is_kept_and_saved_whole(images: Images, layout: Layout) -> None:
    digest = layout.index(layout.image(ELSEWHERE), layout.image(HERE), layout.attestation())

    assert load(images, layout.archive()) == ["docker.io/library/many:1"]

    assert images.inspect("many:1")["Architecture"] == HERE
    assert images.inspect("many:1")["RepoDigests"] == [f"many@{digest}"]
    files = saved(images, "many:1")
    assert {f"blobs/sha256/{each.removeprefix('sha256:')}" for each in layout.blobs} <= set(files)
    assert json.loads(files["index.json"])["manifests"][0]["digest"] == digest
    docker = json.loads(files["manifest.json"])
    assert docker[0]["RepoTags"] == ["many:1"]


def test_what_of_an_index_is_there_is_loaded_and_saved_with_its_digest(
    images: Images, layout: Layout
) -> None:
    elsewhere = layout.image(ELSEWHERE)
    digest = layout.index(elsewhere, layout.image(HERE))
    layout.forget(elsewhere)

    load(images, layout.archive())
    files = saved(images, "many:1")
    images.remove("many:1")
    load(images, tar(files))

    assert images.inspect("many:1")["RepoDigests"] == [f"many@{digest}"]
    assert images.inspect("many:1")["Architecture"] == HERE


def test_an_index_for_other_platforms_alone_is_loaded_too(images: Images, layout: Layout) -> None:
    layout.index(layout.image(ELSEWHERE))

    assert load(images, layout.archive()) == ["docker.io/library/many:1"]
    assert images.inspect("many:1")["Architecture"] == ELSEWHERE


def test_one_platform_of_an_index_can_be_saved(images: Images, layout: Layout) -> None:
    elsewhere = layout.image(ELSEWHERE)
    layout.index(elsewhere, layout.image(HERE))
    load(images, layout.archive())

    files = saved(images, "many:1", f"linux/{ELSEWHERE}")

    assert json.loads(files["index.json"])["manifests"][0]["digest"] == elsewhere["digest"]
    config = json.loads(files[json.loads(files["manifest.json"])[0]["Config"]])
    assert config["architecture"] == ELSEWHERE
    assert len([name for name in files if name.startswith("blobs/")]) == 3


def test_a_platform_that_an_archive_has_not_got_is_refused(images: Images, layout: Layout) -> None:
    layout.index(layout.image(HERE))

    with pytest.raises(NotFound, match="no matching manifest for linux/riscv64"):
        load(images, layout.archive(), "linux/riscv64")
    assert images.list() == []


def test_several_images_of_one_archive_share_what_they_have_in_common(
    images: Images, layout: Layout
) -> None:
    entry = layout.image(HERE)
    layout.index(entry, name="one:1")
    layout.index(entry, layout.image(ELSEWHERE), name="two:2")

    assert load(images, layout.archive()) == ["docker.io/library/one:1", "docker.io/library/two:2"]
    assert images.inspect("one:1")["Id"] == images.inspect("two:2")["Id"]


def test_names_come_from_dockers_list_where_the_index_has_none(
    images: Images, layout: Layout
) -> None:
    entry = layout.image(HERE)
    layout.entries.append({key: entry[key] for key in ("mediaType", "digest", "size")})
    config = json.loads(layout.blobs[entry["digest"]])["config"]["digest"]
    path = f"blobs/sha256/{config.removeprefix('sha256:')}"
    docker = [{"Config": path, "RepoTags": ["by/docker:1"], "Layers": []}]
    with tarfile.open(fileobj=io.BytesIO(layout.archive())) as archive:
        files = {each.name: archive.extractfile(each).read() for each in archive}  # type: ignore[union-attr]

    names = load(images, tar({**files, "manifest.json": json.dumps(docker).encode()}))

    assert names == ["docker.io/by/docker:1"]
