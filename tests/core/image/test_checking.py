"""`system check`: damage to blobs, names and layers is found, and mended where it can be."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.registry import digest_of
from wherry.engine.images import Images
from wherry.errors import NotFound
from wherry.image.check import Problem, check_images
from wherry.image.layers import layer_directory
from wherry.image.store import ImageStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def layer_of(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"dir/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "dir"
        archive.addfile(link)
    return buffer.getvalue()


LAYER = layer_of(one=b"1" * 2000, two=b"2")
DIFF_ID = digest_of(LAYER)


def archive_of(layer: bytes) -> bytes:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
    }
    files = {
        "layer.tar": layer,
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(
            [{"Config": "config.json", "RepoTags": ["one:1"], "Layers": ["layer.tar"]}]
        ).encode(),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def store(own_world: Path) -> Iterator[ImageStore]:
    """A store with the image one:1."""
    store = ImageStore()
    source = io.BytesIO(archive_of(LAYER))
    Images(store, lambda function: function(), list, set).load(source.read)
    assert problems(store) == []
    yield store


def check(store: ImageStore, *, used: tuple[str, ...] = (), quick: bool = False) -> list[Problem]:
    return list(
        check_images(store, used_layers=used, unshared=lambda function: function(), quick=quick)
    )


def problems(store: ImageStore, *, used: tuple[str, ...] = (), quick: bool = False) -> list[str]:
    return [problem.text for problem in check(store, used=used, quick=quick)]


def mend(store: ImageStore, *, used: tuple[str, ...] = ()) -> None:
    for problem in check_images(
        store, used_layers=used, unshared=lambda function: function(), quick=False
    ):
        if problem.mend is not None:
            problem.mend()


def append_to(path: str) -> None:
    with Path(path).open("ab") as file:
        file.write(b"x")


def relink(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


def diff(name: str) -> Path:
    return Path(layer_directory(DIFF_ID), "diff", name)


def test_a_damaged_config_is_dropped_with_the_name_that_leads_to_it(store: ImageStore) -> None:
    image = store.find("one:1")
    append_to(store.blob_path(image.id))

    assert problems(store)[0] == f"blob {image.id} is damaged"
    assert problems(store)[1].startswith("image docker.io/library/one:1 cannot be read")
    mend(store)

    assert problems(store) == []
    assert not store.has_blob(image.id)
    with pytest.raises(NotFound):
        store.find("one:1")


def test_a_damaged_layer_blob_is_dropped_and_the_image_still_runs(store: ImageStore) -> None:
    append_to(store.blob_path(DIFF_ID))
    assert problems(store) == [f"blob {DIFF_ID} is damaged"]

    mend(store)

    assert problems(store) == [f"image docker.io/library/one:1 lacks 1 of its layers ({DIFF_ID})"]
    assert diff("dir/two").read_bytes() == b"2"


@pytest.mark.parametrize(
    "damage",
    [
        lambda: append_to(str(diff("dir/two"))),
        lambda: diff("dir/one").write_bytes(b"1" * 1999 + b"0"),
        lambda: diff("dir/one").unlink(),
        lambda: relink(diff("link")),
        lambda: diff("dir").rename(diff("moved")),
        lambda: Path(layer_directory(DIFF_ID), "layer.json").unlink(),
        lambda: Path(layer_directory(DIFF_ID), "layer.json").write_text("{"),
        lambda: diff("").rename(diff("../lost")),
    ],
    ids=["longer", "other", "gone", "link", "directory", "unlabelled", "label", "empty"],
)
def test_a_damaged_layer_is_unpacked_again(store: ImageStore, damage: Callable[[], object]) -> None:
    damage()
    assert [text.split(" ")[:4] for text in problems(store)] == [
        ["the", "unpacked", "layer", DIFF_ID]
    ]

    mend(store, used=(DIFF_ID,))

    assert problems(store) == []
    assert diff("dir/one").read_bytes() == b"1" * 2000
    assert [path.name for path in Path(layer_directory(DIFF_ID)).parent.iterdir()] == [
        DIFF_ID.removeprefix("sha256:")
    ]


def test_a_layer_that_a_container_needs_is_not_removed_without_its_blob(store: ImageStore) -> None:
    Path(layer_directory(DIFF_ID), "layer.json").unlink()
    store.drop(store.find("one:1").descriptor["digest"])

    found = check(store, used=(DIFF_ID,))

    assert [problem.mend for problem in found] == [None]
    assert "its image is gone" in found[0].hint


def test_a_layer_that_is_missing_below_a_container_is_brought_back(store: ImageStore) -> None:
    Path(layer_directory(DIFF_ID)).rename(f"{layer_directory(DIFF_ID)}.gone")
    assert problems(store, used=(DIFF_ID,)) == [f"the unpacked layer {DIFF_ID} is missing"]

    mend(store, used=(DIFF_ID,))

    assert problems(store, used=(DIFF_ID,)) == []


def test_a_quick_check_reads_no_contents(store: ImageStore) -> None:
    append_to(store.blob_path(DIFF_ID))
    append_to(str(diff("dir/two")))

    assert problems(store, quick=True) == []


@pytest.mark.parametrize("content", ["", "{", "not json"])
def test_images_survive_the_loss_of_their_names(store: ImageStore, content: str) -> None:
    image_id = store.find("one:1").id
    Path(store.root, "index.json").write_text(content)

    mend(store)

    assert problems(store) == []
    assert [(image.id, image.references) for image in store.images()] == [(image_id, ())]
