"""A pull brings an image into the store, whole and verified."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from support.pulling import Recorder, pull
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
from wherry.errors import CorruptState, NotFound, RegistryError, Unsupported
from wherry.image.reference import parse_reference

if TYPE_CHECKING:
    from support.registry import Asked, RegistryServer
    from wherry.image.store import ImageStore


def is_whole(store: ImageStore, image: MemoryImage) -> bool:
    return all(store.read_blob(digest) == blob for digest, blob in image.blobs.items())


def is_empty(store: ImageStore, image: MemoryImage) -> bool:
    return not any(store.has_blob(layer["digest"]) for layer in image.layers)


def test_pulled_image_is_found_with_all_its_blobs(
    registry: RegistryServer, store: ImageStore
) -> None:
    image = make_image({"a": b"1"}, {"b": os.urandom(300_000)}, {"c": b"3"})
    registry.put_image("team/app", "1.0", image)
    progress = Recorder()

    descriptor = pull(store, f"{registry.host}/team/app:1.0", progress)

    found = store.find(f"{registry.host}/team/app:1.0")
    assert is_whole(store, image)
    assert descriptor["digest"] == image.digest
    assert list(found.diff_ids) == image.diff_ids
    assert list(found.repo_digests) == [f"{registry.host}/team/app@{image.digest}"]
    assert progress.messages == [
        "1.0: Pulling from team/app",
        f"Digest: {image.digest}",
        f"Status: Downloaded newer image for {registry.host}/team/app:1.0",
    ]
    assert {tuple(seen)[-2:] for seen in progress.statuses.values()} == {
        ("Download complete", "Pull complete")
    }


def test_second_pull_asks_for_the_tag_alone(
    registry: RegistryServer, flaky: FlakyProxy, store: ImageStore
) -> None:
    image = make_image({"a": b"1"})
    registry.put_image("app", "latest", image)
    pull(store, f"{flaky.host}/app")
    flaky.requests.clear()
    progress = Recorder()

    pull(store, f"{flaky.host}/app", progress)

    assert [asked.method for asked in flaky.requests if "manifests" in asked.path] == ["HEAD"]
    assert not flaky.count("GET", "/blobs/")
    assert progress.messages[-1] == f"Status: Image is up to date for {flaky.host}/app:latest"
    assert set(map(tuple, progress.statuses.values())) == {("Waiting", "Already exists")}


def test_tag_that_moved_is_followed(registry: RegistryServer, store: ImageStore) -> None:
    before, after = make_image({"a": b"1"}), make_image({"a": b"2"})
    registry.put_image("app", "latest", before)
    pull(store, f"{registry.host}/app")
    registry.put_image("app", "latest", after)

    pull(store, f"{registry.host}/app")

    assert list(store.find(f"{registry.host}/app").diff_ids) == after.diff_ids


def test_pull_by_digest_brings_exactly_that(registry: RegistryServer, store: ImageStore) -> None:
    image = make_image({"a": b"1"})
    registry.put_image("app", "latest", image)
    name = f"{registry.host}/app@{image.digest}"

    pull(store, name)

    assert store.find(name).descriptor["digest"] == image.digest


def test_index_is_kept_whole_with_the_blobs_of_one_platform(
    registry: RegistryServer, store: ImageStore
) -> None:
    arm, amd = make_image({"a": b"arm"}, architecture="arm64"), make_image({"a": b"amd"})
    registry.put_image("app", "", arm)
    registry.put_image("app", "", amd)
    index = make_index({"linux/arm64/v8": arm, "linux/amd64": amd}, attestation=True)
    registry.put_manifest("app", "latest", index, OCI_INDEX)

    descriptor = pull(store, f"{registry.host}/app", platform="linux/arm64")

    assert descriptor["digest"] == digest_of(index)
    assert store.read_blob(digest_of(index)) == index
    assert is_whole(store, arm)
    assert is_empty(store, amd)


def test_index_may_lead_to_an_index(registry: RegistryServer, store: ImageStore) -> None:
    image = make_image({"a": b"1"})
    registry.put_image("app", "", image)
    inner = make_index({"linux/amd64": image})
    registry.put_manifest("app", digest_of(inner), inner, OCI_INDEX)
    outer = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [descriptor_of(inner, OCI_INDEX)],
        }
    ).encode()
    registry.put_manifest("app", "latest", outer, OCI_INDEX)

    pull(store, f"{registry.host}/app", platform="linux/amd64")

    assert is_whole(store, image)


def test_index_without_our_platform_says_what_it_has(
    registry: RegistryServer, store: ImageStore
) -> None:
    image = make_image({"a": b"1"}, architecture="s390x")
    registry.put_image("app", "", image)
    registry.put_manifest("app", "latest", make_index({"linux/s390x": image}), OCI_INDEX)

    with pytest.raises(NotFound) as missing:
        pull(store, f"{registry.host}/app", platform="linux/arm64")

    assert missing.value.message == (
        "no matching manifest for linux/arm64/v8 in the manifest list entries"
    )
    assert "linux/s390x" in str(missing.value.hint)


def test_single_image_of_another_platform_than_asked_for_is_refused(
    registry: RegistryServer, store: ImageStore
) -> None:
    registry.put_image("app", "latest", make_image({"a": b"1"}, architecture="s390x"))

    with pytest.raises(NotFound, match=r"wanted linux/riscv64, actual: linux/s390x"):
        pull(store, f"{registry.host}/app", platform="linux/riscv64")


def test_tags_are_read_page_by_page(flaky: FlakyProxy, store: ImageStore) -> None:
    from support.pulling import hasty_registry

    def mischief(asked: Asked) -> Mischief | None:
        if "tags/list" not in asked.path:
            return None
        second = "last=b" in asked.path
        return Mischief(
            status=200,
            headers={} if second else {"Link": '</v2/app/tags/list?n=2&last=b>; rel="next"'},
            body=json.dumps({"tags": ["c"] if second else ["a", "b"]}).encode(),
        )

    flaky.mischief = mischief

    tags = hasty_registry(flaky.host).tags(parse_reference(f"{flaky.host}/app"))

    assert tags == ["a", "b", "c"]


def test_unknown_tag_is_not_found(registry: RegistryServer, store: ImageStore) -> None:
    registry.put_image("app", "latest", make_image({"a": b"1"}))

    with pytest.raises(NotFound) as missing:
        pull(store, f"{registry.host}/app:nope")

    assert missing.value.message == (
        f"manifest for {registry.host}/app:nope not found: manifest unknown"
    )


def test_registry_that_does_not_answer_is_named(store: ImageStore) -> None:
    with pytest.raises(RegistryError, match=r"cannot reach 127.0.0.1:1: Connection refused"):
        pull(store, "127.0.0.1:1/app")


def test_manifest_that_has_not_its_digest_is_refused(
    registry: RegistryServer, flaky: FlakyProxy, store: ImageStore
) -> None:
    registry.put_image("app", "latest", make_image({"a": b"1"}))
    flaky.mischief = lambda asked: (
        Mischief(change=lambda body: body.replace(b"layers", b"LAYERS"))
        if "manifests" in asked.path and asked.method == "GET"
        else None
    )

    with pytest.raises(CorruptState, match="digest mismatch"):
        pull(store, f"{flaky.host}/app")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body: b"X" + body[1:], "digest"),
        (lambda body: body[:-7], "only"),
        (lambda body: body + b"more", "larger than"),
        (lambda body: b"", "only 0 of"),
    ],
    ids=["wrong", "short", "long", "empty"],
)
def test_wrong_layer_is_one_error_and_leaves_nothing(
    registry: RegistryServer,
    flaky: FlakyProxy,
    store: ImageStore,
    change: object,
    message: str,
) -> None:
    image = make_image({"a": os.urandom(200_000)})
    registry.put_image("app", "latest", image)
    layer = image.layers[0]["digest"]
    flaky.mischief = lambda asked: (
        Mischief(change=change)  # type: ignore[arg-type]
        if asked.method == "GET" and layer in asked.path
        else None
    )

    with pytest.raises(CorruptState, match=message):
        pull(store, f"{flaky.host}/app")

    assert is_empty(store, image)
    # Nothing of it is taken up again: the next pull asks for the whole.
    flaky.mischief = lambda asked: None
    pull(store, f"{flaky.host}/app")
    assert "Range" not in flaky.requests[-1].headers
    assert is_whole(store, image)


def test_layer_digest_that_is_a_path_is_refused(
    registry: RegistryServer, flaky: FlakyProxy, store: ImageStore
) -> None:
    image = make_image({"a": b"1"})
    registry.put_image("app", "latest", image)
    evil = json.loads(image.manifest)
    evil["layers"][0]["digest"] = "sha256:../../../../etc/passwd"
    body = json.dumps(evil).encode()
    flaky.mischief = lambda asked: (
        Mischief(status=200, headers={"Content-Type": OCI_MANIFEST}, body=body)
        if "manifests" in asked.path
        else None
    )

    with pytest.raises(CorruptState, match="is corrupt"):
        pull(store, f"{flaky.host}/app")


def test_manifest_that_is_too_large_is_refused(flaky: FlakyProxy, store: ImageStore) -> None:
    flaky.mischief = lambda asked: (
        Mischief(status=200, headers={"Content-Type": OCI_MANIFEST}, body=b" " * (5 << 20))
        if "manifests" in asked.path
        else None
    )

    with pytest.raises(CorruptState, match="larger than"):
        pull(store, f"{flaky.host}/app")


def test_schema_1_is_refused_with_what_to_do(flaky: FlakyProxy, store: ImageStore) -> None:
    flaky.mischief = lambda asked: (
        Mischief(
            status=200,
            headers={"Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"},
            body=b'{"schemaVersion": 1}',
        )
        if "manifests" in asked.path
        else None
    )

    with pytest.raises(Unsupported, match="schema 1"):
        pull(store, f"{flaky.host}/app")


def test_artifact_that_is_no_image_is_refused(registry: RegistryServer, store: ImageStore) -> None:
    image = make_image({"a": b"1"})
    document = json.loads(image.manifest)
    document["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
    chart = MemoryImage(
        manifest=json.dumps(document).encode(), blobs=image.blobs, diff_ids=image.diff_ids
    )
    registry.put_image("chart", "latest", chart)

    with pytest.raises(Unsupported, match=r"is no container image.*helm"):
        pull(store, f"{registry.host}/chart")


def test_foreign_layer_comes_from_its_url(
    registry: RegistryServer, flaky: FlakyProxy, store: ImageStore
) -> None:
    image = make_image({"a": b"1"})
    registry.put_image("app", "latest", image)
    document = json.loads(image.manifest)
    layer = document["layers"][0]
    layer["urls"] = [f"http://{flaky.host}/gone", f"http://{flaky.host}/layer"]
    manifest = json.dumps(document).encode()

    def mischief(asked: Asked) -> Mischief | None:
        if asked.path.endswith("/layer"):
            return Mischief(status=200, body=image.blobs[layer["digest"]])
        if asked.path.endswith("/gone") or layer["digest"] in asked.path:
            return Mischief(status=404, body=b'{"errors":[{"code":"BLOB_UNKNOWN"}]}')
        if "manifests" in asked.path:
            return Mischief(status=200, headers={"Content-Type": OCI_MANIFEST}, body=manifest)
        return None

    flaky.mischief = mischief

    pull(store, f"{flaky.host}/app")

    assert is_whole(store, image)


def test_warnings_of_the_registry_are_shown_once(
    registry: RegistryServer, flaky: FlakyProxy, store: ImageStore
) -> None:
    from wherry.image.pull import pull_image

    registry.put_image("app", "latest", make_image({"a": b"1"}))
    flaky.mischief = lambda asked: Mischief(headers={"Warning": '299 - "moving on Monday"'})
    progress = Recorder()

    pull_image(store, parse_reference(f"{flaky.host}/app"), progress=progress)

    warnings = [text for text in progress.messages if "Monday" in text]
    assert warnings == [f"{flaky.host} warns: moving on Monday"]


def test_what_is_left_of_a_pull_limit_is_told(
    registry: RegistryServer, flaky: FlakyProxy, store: ImageStore
) -> None:
    registry.put_image("app", "latest", make_image({"a": b"1"}))
    limits = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"}
    flaky.mischief = lambda asked: Mischief(headers=limits)
    progress = Recorder()

    pull(store, f"{flaky.host}/app", progress)

    assert f"{flaky.host}: 76 of 100 pulls left in 6 hours" in progress.messages
