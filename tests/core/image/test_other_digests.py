"""Images whose descriptors have sha512 digests: pulled, kept, checked, saved, loaded, pushed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from support.pulling import hasty_registry, pull
from support.registry import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, digest_of, make_layer
from wherry.engine.images import Images
from wherry.errors import CorruptState, UsageError
from wherry.image.check import check_images
from wherry.image.garbage import collect
from wherry.image.platform import host_platform
from wherry.image.push import push_images
from wherry.image.reference import parse_reference

if TYPE_CHECKING:
    from support.registry import RegistryServer
    from wherry.image.store import ImageStore


def long_digest_of(content: bytes) -> str:
    return f"sha512:{hashlib.sha512(content).hexdigest()}"


def described(content: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    digest = long_digest_of(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content), **more}


class LongImage:
    """An image with sha512 digests all over, but for its index, which a tag names."""

    def __init__(self) -> None:
        self.files = make_layer({"file": os.urandom(100_000)})
        self.layer = gzip.compress(self.files, 1)
        config = {
            "architecture": host_platform().architecture,
            "os": "linux",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(self.files)]},
        }
        self.config = json.dumps(config).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described(self.config, OCI_CONFIG),
            "layers": [described(self.layer, OCI_LAYER)],
        }
        self.manifest = json.dumps(manifest).encode()
        platform = {"os": "linux", "architecture": host_platform().architecture}
        entry = described(self.manifest, OCI_MANIFEST, platform=platform)
        self.index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})

    def blobs(self) -> dict[str, bytes]:
        return {long_digest_of(each): each for each in (self.manifest, self.config, self.layer)} | {
            digest_of(self.index.encode()): self.index.encode()
        }

    def archive(self) -> bytes:
        """An OCI image layout in a tar."""
        entry = {
            "mediaType": OCI_INDEX,
            "digest": digest_of(self.index.encode()),
            "size": len(self.index),
            "annotations": {"io.containerd.image.name": "docker.io/library/long:1"},
        }
        files = {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        }
        for digest, blob in self.blobs().items():
            files[f"blobs/{digest.replace(':', '/')}"] = blob
        return tar(files)


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def images(store: ImageStore) -> Images:
    return Images(store, lambda work: work(), list, set)


def load(images: Images, archive: bytes) -> None:
    images.load(io.BytesIO(archive).read)


def problems(store: ImageStore) -> list[str]:
    found = check_images(store, used_layers=(), unshared=lambda work: work(), quick=False)
    return [problem.text for problem in found]


def test_archive_is_loaded_and_lies_in_the_layout_by_its_digests(
    images: Images, store: ImageStore
) -> None:
    made = LongImage()

    load(images, made.archive())

    image = store.find("long:1")
    assert image.id == long_digest_of(made.config)
    assert all(store.read_blob(digest) == blob for digest, blob in made.blobs().items())
    assert os.path.exists(f"{store.root}/blobs/{image.id.replace(':', '/')}")
    for name in (image.id, image.id[7:19], image.id[:20]):
        assert store.find(name).id == image.id
    assert problems(store) == []


def test_what_is_saved_is_what_was_loaded(images: Images, store: ImageStore) -> None:
    made = LongImage()
    load(images, made.archive())
    saved = io.BytesIO()

    images.save(["long:1"], saved.write)

    with tarfile.open(fileobj=io.BytesIO(saved.getvalue())) as archive:
        names = archive.getnames()
        assert all(f"blobs/{digest.replace(':', '/')}" in names for digest in made.blobs())
    images.remove("long:1")
    load(images, saved.getvalue())
    assert store.find("long:1").id == long_digest_of(made.config)


def test_archive_whose_blob_is_another_is_refused(images: Images, store: ImageStore) -> None:
    made = LongImage()
    wrong = made.archive().replace(b'"Cmd": ["sh"]', b'"Cmd": ["no"]')

    with pytest.raises(CorruptState, match="digest mismatch: the archive's blobs/sha512/"):
        load(images, wrong)
    assert store.entries() == []


def test_damage_is_found_and_rubbish_is_collected(images: Images, store: ImageStore) -> None:
    made = LongImage()
    load(images, made.archive())
    path = store.blob_path(long_digest_of(made.layer))
    with open(path, "ab") as file:
        file.write(b"more")

    assert problems(store) == [f"blob {long_digest_of(made.layer)} is damaged"]
    images.remove("long:1")
    collect(store, (), lambda work: work())
    assert os.listdir(f"{store.root}/blobs/sha512") == []


def test_image_is_pulled_and_pushed_with_its_digests(
    registry: RegistryServer, store: ImageStore
) -> None:
    made = LongImage()
    for blob in (made.config, made.layer):
        registry.put_blob("team/long", long_digest_of(blob), blob)
    # This registry knows manifests by sha256 alone, unlike blobs.
    registry.put_manifest("team/long", "1", made.manifest)

    descriptor = pull(store, f"{registry.host}/team/long:1")
    reference = parse_reference(f"{registry.host}/team/copy:1")
    pushed = push_images(
        store, [(reference, descriptor)], registry=hasty_registry(reference.domain, reference.path)
    )

    assert store.find(f"{registry.host}/team/long:1").id == long_digest_of(made.config)
    assert [each.digest for each in pushed] == [digest_of(made.manifest)]
    status, _, body = registry.request("GET", f"/v2/team/copy/blobs/{long_digest_of(made.layer)}")
    assert (status, body) == (200, made.layer)


@pytest.mark.parametrize(
    "digest", ["sha384:" + "0" * 96, "sha512:" + "0" * 64, "md5:" + "0" * 32, "sha512:" + "x" * 128]
)
def test_other_digests_are_refused(store: ImageStore, digest: str) -> None:
    with pytest.raises(UsageError, match="only sha256 and sha512 are known"):
        store.blob_path(digest)
