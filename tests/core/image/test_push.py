"""A push brings an image into a registry, and sends what is not there yet."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from support.pulling import Recorder, hasty_registry, pull
from support.registry import (
    OCI_INDEX,
    OCI_MANIFEST,
    FlakyProxy,
    MemoryImage,
    Mischief,
    descriptor_of,
    digest_of,
    make_image,
    make_index,
)
from wherry.errors import NotFound, RegistryError, UsageError
from wherry.image.push import push_images
from wherry.image.reference import parse_reference

if TYPE_CHECKING:
    from support.registry import Asked, RegistryServer
    from wherry.image.push import Pushed
    from wherry.image.store import ImageStore

CHUNK = 1 << 20


def keep(store: ImageStore, *images: MemoryImage) -> dict[str, Any]:
    """Put `images` into the store; the descriptor of the last one's manifest."""
    for image in images:
        for blob in (*image.blobs.values(), image.manifest):
            store.put_blob(blob)
    return descriptor_of(images[-1].manifest, images[-1].media_type)


def push(
    store: ImageStore,
    name: str,
    descriptor: dict[str, Any],
    progress: Recorder | None = None,
    *,
    platform: str | None = None,
) -> Pushed:
    reference = parse_reference(name)
    registry = hasty_registry(reference.domain, reference.path, chunk_size=CHUNK)
    image: Any = (reference, descriptor)
    [pushed] = push_images(store, [image], platform=platform, progress=progress, registry=registry)
    return pushed


def manifest_in(registry: RegistryServer, repository: str, tag: str) -> bytes:
    accept = {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}"}
    status, _, body = registry.request("GET", f"/v2/{repository}/manifests/{tag}", b"", accept)
    assert status == 200, body
    return body


def test_pushed_image_is_in_the_registry_byte_for_byte(
    registry: RegistryServer, store: ImageStore
) -> None:
    image = make_image({"a": b"1"}, {"b": os.urandom(3 * CHUNK)})
    descriptor = keep(store, image)
    progress = Recorder()

    pushed = push(store, f"{registry.host}/team/app:1.0", descriptor, progress)

    assert pushed.digest == image.digest
    assert manifest_in(registry, "team/app", "1.0") == image.manifest
    for digest, blob in image.blobs.items():
        assert registry.request("GET", f"/v2/team/app/blobs/{digest}")[2] == blob
    assert progress.messages == [
        f"The push refers to repository [{registry.host}/team/app]",
        f"1.0: digest: {image.digest} size: {len(image.manifest)}",
    ]
    assert {seen[-1] for seen in progress.statuses.values()} == {"Pushed"}


def test_what_is_there_is_not_sent_again(
    registry: RegistryServer, flaky: FlakyProxy, store: ImageStore
) -> None:
    descriptor = keep(store, make_image({"a": os.urandom(100_000)}))
    push(store, f"{registry.host}/app:1", descriptor)
    progress = Recorder()

    push(store, f"{flaky.host}/app:2", descriptor, progress)

    assert flaky.count("POST", "") == 0
    assert {seen[-1] for seen in progress.statuses.values()} == {"Layer already exists"}


def test_blob_of_another_repository_is_mounted(
    registry: RegistryServer, flaky: FlakyProxy, store: ImageStore
) -> None:
    image = make_image({"a": os.urandom(100_000)})
    registry.put_image("team/base", "latest", image)
    descriptor: Any = pull(store, f"{flaky.host}/team/base")
    progress = Recorder()

    push(store, f"{flaky.host}/me/app:1", descriptor, progress)

    assert {seen[-1] for seen in progress.statuses.values()} == {"Mounted from team/base"}
    assert manifest_in(registry, "me/app", "1") == image.manifest


def test_mount_that_fails_becomes_an_upload(
    registry: RegistryServer, flaky: FlakyProxy, store: ImageStore
) -> None:
    image = make_image({"a": os.urandom(100_000)})
    registry.put_image("team/base", "latest", image)
    descriptor: Any = pull(store, f"{flaky.host}/team/base")
    flaky.mischief = lambda asked: Mischief(status=403) if "mount=" in asked.path else None

    push(store, f"{flaky.host}/me/app:1", descriptor)

    assert manifest_in(registry, "me/app", "1") == image.manifest


def test_chunk_that_is_lost_is_sent_again_and_no_other(
    registry: RegistryServer, flaky: FlakyProxy, store: ImageStore
) -> None:
    image = make_image({"a": os.urandom(5 * CHUNK)})
    descriptor = keep(store, image)
    seen = 0

    def mischief(asked: Asked) -> Mischief | None:
        nonlocal seen
        seen += asked.method == "PATCH"
        if asked.method == "PATCH" and seen == 3:
            return Mischief(swallow_after=CHUNK // 2)
        if asked.method == "PATCH" and seen == 5:
            return Mischief(status=503)
        return None

    flaky.mischief = mischief

    push(store, f"{flaky.host}/app:1", descriptor)

    assert manifest_in(registry, "app", "1") == image.manifest
    # The refused chunk came through whole, the lost one did not.
    assert flaky.received["PATCH"] == image.layers[0]["size"] + CHUNK


def test_upload_that_the_registry_has_forgotten_begins_again(
    registry: RegistryServer, flaky: FlakyProxy, store: ImageStore
) -> None:
    image = make_image({"a": os.urandom(3 * CHUNK)})
    descriptor = keep(store, image)
    seen = 0

    def mischief(asked: Asked) -> Mischief | None:
        nonlocal seen
        seen += asked.method == "PATCH"
        if asked.method == "PATCH" and seen == 2:
            return Mischief(swallow_after=10)
        if asked.method == "GET" and "/uploads/" in asked.path:
            return Mischief(status=404)
        return None

    flaky.mischief = mischief

    push(store, f"{flaky.host}/app:1", descriptor)

    assert manifest_in(registry, "app", "1") == image.manifest
    assert flaky.count("POST", "/uploads/") == 3  # the layer twice, the config


def test_small_blob_whose_connection_is_lost_is_sent_again(
    registry: RegistryServer, flaky: FlakyProxy, store: ImageStore
) -> None:
    image = make_image({"a": os.urandom(1000)})
    descriptor = keep(store, image)
    lost = 0

    def mischief(asked: Asked) -> Mischief | None:
        nonlocal lost
        if asked.method == "PUT" and "/uploads/" in asked.path and lost < 2:
            lost += 1
            return Mischief(swallow_after=10)
        return None

    flaky.mischief = mischief

    push(store, f"{flaky.host}/app:1", descriptor)

    assert manifest_in(registry, "app", "1") == image.manifest


def test_registry_that_never_takes_a_chunk_is_an_error(
    flaky: FlakyProxy, store: ImageStore
) -> None:
    descriptor = keep(store, make_image({"a": os.urandom(2 * CHUNK)}))
    flaky.mischief = lambda asked: Mischief(status=500) if asked.method == "PATCH" else None

    with pytest.raises(RegistryError, match="500"):
        push(store, f"{flaky.host}/app:1", descriptor)


def test_registry_that_always_forgets_is_an_error(flaky: FlakyProxy, store: ImageStore) -> None:
    descriptor = keep(store, make_image({"a": os.urandom(3 * CHUNK)}))

    def mischief(asked: Asked) -> Mischief | None:
        if asked.method == "PATCH" and not asked.headers["Content-Range"].startswith("0-"):
            return Mischief(swallow_after=10)
        if asked.method == "GET" and "/uploads/" in asked.path:
            return Mischief(status=404)
        return None

    flaky.mischief = mischief

    with pytest.raises(RegistryError, match="was lost"):
        push(store, f"{flaky.host}/app:1", descriptor)


def test_index_is_pushed_whole_where_all_of_it_is_here(
    registry: RegistryServer, store: ImageStore
) -> None:
    amd, arm = make_image({"a": b"1"}), make_image({"a": b"2"}, architecture="arm64")
    keep(store, amd, arm)
    index = make_index({"linux/amd64": amd, "linux/arm64": arm})
    store.put_blob(index)

    pushed = push(store, f"{registry.host}/app:1", descriptor_of(index, OCI_INDEX))

    assert pushed.digest == digest_of(index)
    assert manifest_in(registry, "app", "1") == index
    assert manifest_in(registry, "app", arm.digest) == arm.manifest


def test_index_that_leads_to_an_index_is_pushed_whole(
    registry: RegistryServer, store: ImageStore
) -> None:
    image = make_image({"a": b"1"})
    keep(store, image)
    inner = make_index({"linux/amd64": image})
    entries = [descriptor_of(inner, OCI_INDEX)]
    outer = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    store.put_blob(inner)
    store.put_blob(outer)

    pushed = push(store, f"{registry.host}/app:1", descriptor_of(outer, OCI_INDEX))

    assert pushed.digest == digest_of(outer)
    assert manifest_in(registry, "app", digest_of(inner)) == inner
    assert manifest_in(registry, "app", image.digest) == image.manifest


def with_subject(image: MemoryImage, subject: MemoryImage) -> MemoryImage:
    """`image`, which says that it belongs to another."""
    document = json.loads(image.manifest)
    document["subject"] = descriptor_of(subject.manifest, subject.media_type)
    document["annotations"] = {"made": "yesterday"}
    manifest = json.dumps(document).encode()
    return MemoryImage(manifest=manifest, blobs=image.blobs, diff_ids=image.diff_ids)


def test_what_belongs_to_an_image_is_listed_where_the_registry_lists_nothing(
    registry: RegistryServer, store: ImageStore
) -> None:
    image = make_image({"a": b"1"})
    registry.put_image("app", "1", image)
    signatures = [with_subject(make_image({name: b"2"}), image) for name in ("b", "c")]

    for number, signature in enumerate([*signatures, signatures[0]]):
        push(store, f"{registry.host}/app:s{number}", keep(store, signature))

    listed = json.loads(manifest_in(registry, "app", image.digest.replace(":", "-")))
    assert listed["mediaType"] == OCI_INDEX
    assert [entry["digest"] for entry in listed["manifests"]] == [
        signature.digest for signature in signatures
    ]
    assert listed["manifests"][0] == {
        **descriptor_of(signatures[0].manifest, OCI_MANIFEST),
        "artifactType": "application/vnd.oci.image.config.v1+json",
        "annotations": {"made": "yesterday"},
    }


def test_registry_that_lists_what_belongs_to_an_image_is_left_alone(
    registry: RegistryServer, flaky: FlakyProxy, store: ImageStore
) -> None:
    image = make_image({"a": b"1"})
    signature = with_subject(make_image({"b": b"2"}), image)
    flaky.mischief = lambda asked: Mischief(headers={"OCI-Subject": image.digest})

    push(store, f"{flaky.host}/app:s", keep(store, signature))

    assert flaky.count("PUT", "/manifests/") == 1


def test_only_manifest_that_is_here_is_pushed_alone(
    registry: RegistryServer, store: ImageStore
) -> None:
    amd, arm = make_image({"a": b"1"}), make_image({"a": b"2"}, architecture="arm64")
    keep(store, amd)
    index = make_index({"linux/amd64": amd, "linux/arm64": arm}, attestation=True)
    store.put_blob(index)

    pushed = push(store, f"{registry.host}/app:1", descriptor_of(index, OCI_INDEX))

    assert pushed.digest == amd.digest


def test_platform_that_is_asked_for_is_pushed_alone(
    registry: RegistryServer, store: ImageStore
) -> None:
    amd, arm = make_image({"a": b"1"}), make_image({"a": b"2"}, architecture="arm64")
    keep(store, amd, arm)
    index = make_index({"linux/amd64": amd, "linux/arm64": arm})
    store.put_blob(index)
    descriptor = descriptor_of(index, OCI_INDEX)

    pushed = push(store, f"{registry.host}/app:1", descriptor, platform="linux/arm64")

    assert pushed.digest == arm.digest
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x"):
        push(store, f"{registry.host}/app:1", descriptor, platform="linux/s390x")


def test_several_tags_are_pushed_together(registry: RegistryServer, store: ImageStore) -> None:
    image = make_image({"a": b"1"})
    descriptor: Any = keep(store, image)
    names = [parse_reference(f"{registry.host}/app:{tag}") for tag in ("1", "2")]
    progress = Recorder()

    push_images(store, [(name, descriptor) for name in names], progress=progress)

    body = registry.request("GET", "/v2/app/tags/list")[2]
    assert sorted(json.loads(body)["tags"]) == ["1", "2"]
    size = len(image.manifest)
    assert progress.messages == [
        f"The push refers to repository [{registry.host}/app]",
        f"1: digest: {image.digest} size: {size}",
        f"2: digest: {image.digest} size: {size}",
    ]


def test_digest_cannot_be_pushed_to(registry: RegistryServer, store: ImageStore) -> None:
    image = make_image({"a": b"1"})

    with pytest.raises(UsageError, match="cannot push a digest reference"):
        push(store, f"{registry.host}/app@{image.digest}", keep(store, image))
