"""What is removed when nothing leads to it any more, and what is not."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from support.layers import entry, layer
from support.registry import digest_of
from wherry import paths
from wherry.files import Lock, make_dir
from wherry.image import layers
from wherry.image.garbage import collect
from wherry.image.layers import StoredLayer, layer_path, publish
from wherry.image.reference import parse_reference
from wherry.image.sources import remember_source, source_of

if TYPE_CHECKING:
    from wherry.image.store import ImageStore

pytestmark = pytest.mark.skipif(os.name != "posix", reason="layers are unpacked on Linux")


def collect_now(store: ImageStore, *used: str) -> int:
    return collect(store, used, lambda function: function())


def unpacked(store: ImageStore, content: bytes) -> str:
    """A layer that no image has; its diff id."""
    plain = layer(entry("file", content))
    digest = store.put_blob(plain)
    one = StoredLayer(store, {"mediaType": "x", "digest": digest, "size": len(plain)}, digest)
    layers.unpack([one], lambda function: function())
    return digest


def test_what_nothing_leads_to_is_removed_and_counted(store: ImageStore) -> None:
    diff_id = unpacked(store, b"x" * 5000)
    blob = os.stat(store.blob_path(diff_id)).st_size

    assert collect_now(store) == blob + 5000

    assert not store.has_blob(diff_id)
    assert os.listdir(f"{paths.layers()}/sha256") == []


def test_where_a_blob_came_from_goes_with_it(store: ImageStore) -> None:
    digest = store.put_blob(b"1")
    here, there = (parse_reference(f"registry.example/{name}") for name in ("here", "there"))
    remember_source(digest, here)
    assert source_of(digest, there) == "here"

    collect_now(store)

    assert source_of(digest, there) is None
    assert os.listdir(paths.blob_sources()) == []


def test_layers_of_containers_stay(store: ImageStore) -> None:
    diff_id = unpacked(store, b"1")

    collect_now(store, diff_id)

    assert os.listdir(layer_path(diff_id)) == ["file"]


def test_nothing_is_removed_while_something_is_brought(store: ImageStore) -> None:
    diff_id = unpacked(store, b"1")

    with store.held():
        assert collect_now(store) == 0
        assert store.has_blob(diff_id)
    assert collect_now(store) > 0


def test_collection_keeps_others_from_bringing_anything(store: ImageStore) -> None:
    with store.held(), store.held():
        pass  # many may hold it at once
    with Lock(f"{store.root}/held"):
        assert collect_now(store) == 0


def test_what_killed_processes_left_is_removed(store: ImageStore) -> None:
    unpacked(store, b"1")
    directory = f"{paths.layers()}/sha256"
    os.makedirs(f"{directory}/{'0' * 64}.tmp/diff/half")
    os.makedirs(f"{directory}/{'1' * 64}.gone/diff")
    os.makedirs(f"{store.root}/partial/load.123/x")
    drafts = [
        f"{store.root}/index.json.123.tmp",
        f"{store.root}/blobs/sha256/{'3' * 64}.123.tmp",
        f"{make_dir(paths.build_cache())}/{'4' * 64}.json.123.tmp",
    ]
    for path in (f"{directory}/{'2' * 64}.lock", *drafts):
        with open(path, "w"):
            pass

    collect_now(store)

    assert os.listdir(directory) == []
    assert not any(map(os.path.exists, drafts))
    assert os.listdir(f"{store.root}/partial") == []


def test_interrupted_pull_is_waited_for_for_a_week(store: ImageStore) -> None:
    names = [digest_of(b"new"), digest_of(b"old")]
    for name in names:
        with store.ingest(name, 10) as ingest:
            ingest.write(b"half")
    week_ago = time.time() - 8 * 24 * 3600
    os.utime(store.partial_path(names[1]), (week_ago, week_ago))

    collect_now(store)

    assert [os.path.exists(store.partial_path(name)) for name in names] == [True, False]


def test_layer_that_was_made_here_is_published_once(store: ImageStore) -> None:
    diff_id = f"sha256:{'a' * 64}"
    for number in range(2):
        draft = f"{paths.layers()}/draft{number}"
        os.makedirs(f"{draft}/diff")
        for name in (f"diff/file{number}", "stream"):
            with open(f"{draft}/{name}", "w"):
                pass
        publish(draft, diff_id, number)
        assert not os.path.exists(draft)

    assert os.listdir(layer_path(diff_id)) == ["file0"]
    assert layers.layer_size(diff_id) == 0
    assert os.listdir(f"{paths.layers()}/sha256") == ["a" * 64]
