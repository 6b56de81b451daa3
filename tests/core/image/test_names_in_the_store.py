"""What a name, a digest or an id stands for in the image store."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from support.registry import digest_of, make_image, make_index
from support.requirements import need_tool
from wherry.errors import CorruptState, NotFound, UsageError, WherryError
from wherry.image.store import CONTAINERD_NAME, NAME, ImageStore

if TYPE_CHECKING:
    from pathlib import Path

    from support.registry import MemoryImage
    from wherry.oci.image_spec import Descriptor

INDEX = "application/vnd.oci.image.index.v1+json"


def put(store: ImageStore, image: MemoryImage) -> Descriptor:
    for content in (*image.blobs.values(), image.manifest):
        store.put_blob(content)
    return {"mediaType": image.media_type, "digest": image.digest, "size": len(image.manifest)}


def put_index(store: ImageStore, index: bytes) -> Descriptor:
    return {"mediaType": INDEX, "digest": store.put_blob(index), "size": len(index)}


@pytest.fixture
def one(store: ImageStore) -> Descriptor:
    """An image at docker.io/library/one:1."""
    descriptor = put(store, make_image({"a": b"1"}))
    store.tag("docker.io/library/one:1", descriptor)
    return descriptor


def test_image_is_found_by_all_that_it_is_called(store: ImageStore, one: Descriptor) -> None:
    image = store.find("one:1")

    for name in (
        "docker.io/library/one:1",
        "library/one:1",
        f"one@{one['digest']}",
        image.id,
        image.id.removeprefix("sha256:"),
        image.id.removeprefix("sha256:")[:12],
        image.id[:14],
    ):
        assert store.find(name).id == image.id
    assert image.references == ("docker.io/library/one:1",)
    assert image.repo_digests == (f"one@{one['digest']}",)


@pytest.mark.parametrize(
    "name", ["one", "one:2", "two:1", f"one@sha256:{'0' * 64}", "sha256:", "", "UPPER", "0" * 64]
)
def test_what_is_not_there_is_not_found(store: ImageStore, one: Descriptor, name: str) -> None:
    with pytest.raises(NotFound) as caught:
        store.find(name)

    assert caught.value.message == f"No such image: {name}"


def test_store_that_is_not_there_yet_has_no_images(store: ImageStore) -> None:
    assert store.images() == []
    with pytest.raises(NotFound):
        store.find("one")


def test_prefix_of_several_ids_is_refused(store: ImageStore) -> None:
    ids: dict[str, str] = {}
    number = 0
    while not any(len([i for i in ids if i[:1] == first]) > 1 for first in "0123456789abcdef"):
        image = make_image({"a": str(number).encode()})
        descriptor = put(store, image)
        store.tag(f"docker.io/library/n{number}:latest", descriptor)
        ids[store.find(f"n{number}").id.removeprefix("sha256:")] = ""
        number += 1
    first = next(f for f in "0123456789abcdef" if len([i for i in ids if i[0] == f]) > 1)

    with pytest.raises(UsageError, match="Multiple IDs found with provided prefix"):
        store.find(first)


def test_name_that_moves_leaves_its_image_without_one(store: ImageStore, one: Descriptor) -> None:
    before = store.find("one:1").id
    store.tag("docker.io/library/one:1", put(store, make_image({"a": b"2"})))

    assert store.find("one:1").id != before
    assert store.find(before).references == ()
    assert len(store.images()) == 2

    store.tag("docker.io/library/two:1", one)
    assert store.find(before).references == ("docker.io/library/two:1",)
    assert len(store.images()) == 2


def test_tagging_twice_changes_nothing(store: ImageStore, one: Descriptor) -> None:
    store.tag("docker.io/library/one:1", one)

    assert [entry["digest"] for entry in store.entries()] == [one["digest"]]


def test_name_moves_away_from_an_image_that_has_another(store: ImageStore, one: Descriptor) -> None:
    store.tag("docker.io/library/two:1", one)
    store.tag("docker.io/library/one:1", put(store, make_image({"a": b"2"})))

    assert len(store.entries()) == 2


# ---- platforms ----


def test_platform_of_an_index_is_chosen(store: ImageStore) -> None:
    images = {
        "linux/amd64": make_image({"a": b"amd"}, architecture="amd64"),
        "linux/arm64": make_image({"a": b"arm"}, architecture="arm64"),
    }
    for image in images.values():
        put(store, image)
    store.tag("docker.io/library/many:latest", put_index(store, make_index(images)))

    found = {name: store.find("many", name).config["architecture"] for name in images}

    assert found == {"linux/amd64": "amd64", "linux/arm64": "arm64"}


def test_image_of_another_platform_is_not_the_one_that_was_asked_for(store: ImageStore) -> None:
    descriptor = put(store, make_image({"a": b"1"}, architecture="s390x"))
    store.tag("docker.io/library/one:1", descriptor)

    assert store.find("one:1").config["architecture"] == "s390x"
    with pytest.raises(NotFound, match="wanted linux/riscv64, actual: linux/s390x"):
        store.find("one:1", "linux/riscv64")


def test_index_of_which_only_another_platform_is_here_is_an_image(store: ImageStore) -> None:
    here = make_image({"a": b"1"}, architecture="s390x")
    images = {"linux/amd64": make_image({"a": b"2"}), "linux/s390x": here}
    put(store, here)
    index = make_index(images, attestation=True)
    store.tag("docker.io/library/many:latest", put_index(store, index))

    assert [image.config["architecture"] for image in store.images()] == ["s390x"]
    assert store.find("many").references == ("docker.io/library/many:latest",)
    with pytest.raises(NotFound):
        store.find("many", "linux/amd64")


# ---- what others have written ----


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{",
        b"\xff",
        b'{"config": 5}',
        b'{"config": {}}',
        b'{"config": {"digest": "sha256:../x"}, "layers": []}',
        b'{"config": {"digest": "sha256:x"}, "layers": [5]}',
        b'{"manifests": 5}',
        b'{"manifests": [{"digest": 5}]}',
        b'{"manifests": []}',
    ],
)
def test_document_that_is_no_manifest_is_one_clear_error(
    store: ImageStore, one: Descriptor, content: bytes
) -> None:
    digest = store.put_blob(content)
    store.tag("docker.io/library/odd:1", {**one, "digest": digest, "size": len(content)})

    with pytest.raises(WherryError):
        store.find("odd:1")
    assert len(store.images()) == 1


def test_image_with_another_number_of_layers_than_it_says_is_one_clear_error(
    store: ImageStore, one: Descriptor
) -> None:
    manifest = json.loads(store.read_blob(one["digest"]))
    content = json.dumps({**manifest, "layers": []}).encode()
    store.tag("docker.io/library/odd:1", {**one, "digest": store.put_blob(content)})

    with pytest.raises(CorruptState, match="another number of layers"):
        store.find("odd:1")


def test_names_that_other_tools_gave_are_kept(store: ImageStore, one: Descriptor) -> None:
    entries: list[Any] = [
        {**store.entries()[0], "annotations": {NAME: "Not A Reference"}},
        {key: value for key, value in store.entries()[0].items() if key != "annotations"},
    ]
    with open(f"{store.root}/index.json", "w") as file:
        json.dump({"schemaVersion": 2, "manifests": entries}, file)

    (image,) = store.images()
    assert store.find(image.id).id == image.id

    store.tag("docker.io/library/new:1", one)
    names = [(entry.get("annotations") or {}).get(NAME) for entry in store.entries()]
    assert names == ["Not A Reference", "docker.io/library/new:1"]


def test_damaged_index_is_one_clear_error(store: ImageStore, one: Descriptor) -> None:
    with open(f"{store.root}/index.json", "w") as file:
        file.write("{")

    with pytest.raises(WherryError, match=r"index\.json is damaged"):
        store.find("one:1")


def test_skopeo_reads_the_store(store: ImageStore, one: Descriptor) -> None:
    need_tool("skopeo")
    asked = f"oci:{store.root}:docker.io/library/one:1"
    shown = subprocess.run(["skopeo", "inspect", asked], capture_output=True, check=True)

    assert json.loads(shown.stdout)["Digest"] == one["digest"]
    assert store.entries()[0]["annotations"][CONTAINERD_NAME] == "docker.io/library/one:1"


def test_umoci_reads_the_store(store: ImageStore, one: Descriptor) -> None:
    need_tool("umoci")
    shown = subprocess.run(
        ["umoci", "list", "--layout", store.root], capture_output=True, text=True, check=True
    )

    assert shown.stdout.split() == ["docker.io/library/one:1"]


def test_what_skopeo_copies_into_the_store_is_an_image(
    store: ImageStore, one: Descriptor, tmp_path: Path
) -> None:
    need_tool("skopeo")
    shutil.copytree(store.root, tmp_path / "other")
    target = f"oci:{store.root}:docker.io/library/copied:2"
    source = f"oci:{tmp_path / 'other'}:docker.io/library/one:1"
    subprocess.run(["skopeo", "copy", "-q", source, target], check=True)

    assert store.find("copied:2").id == store.find("one:1").id


def test_digest_of_is_what_the_store_uses(store: ImageStore) -> None:
    assert store.put_blob(b"content") == digest_of(b"content")
