"""Layers can be unpacked while they arrive, by a thread or by a forked child."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest

if sys.platform != "linux":
    pytest.skip("layers are unpacked on Linux", allow_module_level=True)

from support.pulling import hasty_registry
from support.registry import FlakyProxy, Mischief, make_image
from wherry.errors import CorruptState, RegistryError, WherryError
from wherry.image.pull import pull_image
from wherry.image.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.registry import MemoryImage, RegistryServer
    from wherry.image.arrival import ArrivingLayer
    from wherry.image.store import ImageStore

    Unpack = Callable[[Sequence[ArrivingLayer]], None]


@pytest.fixture
def image(registry: RegistryServer) -> MemoryImage:
    """Three layers, of which one has a few megabytes, at app:latest."""
    image = make_image({"a": b"1"}, {"b": os.urandom(3_000_000)}, {"c": b"3"})
    registry.put_image("app", "latest", image)
    return image


def pull_and_unpack(store: ImageStore, host: str, unpack: Unpack) -> None:
    reference = parse_reference(f"{host}/app")
    pull_image(store, reference, registry=hasty_registry(host), unpack=unpack)


def read_all(layer: ArrivingLayer) -> bytes:
    with layer.open() as source:
        return b"".join(iter(lambda: source.read(100_000), b""))


def check(layers: Sequence[ArrivingLayer]) -> None:
    """What an unpacker does: take all of each layer, and compare its diff id."""
    for layer in layers:
        content = gzip.decompress(read_all(layer))
        if layer.diff_id != f"sha256:{hashlib.sha256(content).hexdigest()}":
            raise CorruptState("not what it should be")


def check_in_child(layers: Sequence[ArrivingLayer]) -> None:
    child = os.fork()
    if child == 0:
        try:
            check(layers)
            os._exit(0)
        except WherryError:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise WherryError("the child failed")


both = pytest.mark.parametrize(
    "unpack",
    [
        check,
        pytest.param(
            check_in_child,
            marks=pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
        ),
    ],
    ids=["thread", "child"],
)


@both
def test_every_byte_of_every_layer_is_read(
    registry: RegistryServer, image: MemoryImage, store: ImageStore, unpack: Unpack
) -> None:
    pull_and_unpack(store, registry.host, unpack)
    # And once more, with all of them here from the beginning.
    pull_and_unpack(store, registry.host, unpack)

    assert all(store.has_blob(layer["digest"]) for layer in image.layers)


def test_layer_is_read_before_it_is_whole(
    image: MemoryImage, flaky: FlakyProxy, store: ImageStore
) -> None:
    digest = image.layers[1]["digest"]
    has_begun = threading.Event()
    flaky.mischief = lambda asked: (
        Mischief(cut_after=1_000_000, hold=has_begun) if digest in asked.path else None
    )

    def unpack(layers: Sequence[ArrivingLayer]) -> None:
        with layers[1].open() as source:
            assert source.read(10)
            assert not store.has_blob(digest)
            has_begun.set()

    pull_and_unpack(store, flaky.host, unpack)

    assert store.has_blob(digest)


@both
def test_layer_that_has_to_be_fetched_anew_is_unpacked_anew(
    image: MemoryImage, flaky: FlakyProxy, store: ImageStore, unpack: Unpack
) -> None:
    digest = image.layers[1]["digest"]
    with store.ingest(digest, image.layers[1]["size"]) as ingest:
        ingest.write(b"left by another pull, and damaged")

    pull_and_unpack(store, flaky.host, unpack)

    assert store.has_blob(digest)


@both
def test_layer_that_does_not_come_ends_the_unpacking(
    image: MemoryImage, flaky: FlakyProxy, store: ImageStore, unpack: Unpack
) -> None:
    digest = image.layers[1]["digest"]
    flaky.mischief = lambda asked: Mischief(cut_after=0) if digest in asked.path else None

    with pytest.raises(RegistryError, match="was lost"):
        pull_and_unpack(store, flaky.host, unpack)


def test_unpacker_that_gives_up_ends_the_pull_with_its_reason(
    registry: RegistryServer, image: MemoryImage, store: ImageStore
) -> None:
    def unpack(layers: Sequence[ArrivingLayer]) -> None:
        with layers[1].open() as source:
            source.read(1)
        raise CorruptState("a file outside of its layer")

    with pytest.raises(CorruptState, match="outside of its layer"):
        pull_and_unpack(store, registry.host, unpack)
