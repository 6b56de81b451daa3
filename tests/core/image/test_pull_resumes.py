"""A pull that is disturbed goes on where it stopped."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from support.pulling import pull, start_pull, wait_for_bytes
from support.registry import FlakyProxy, Mischief, make_image
from wherry.errors import RegistryError
from wherry.image.transport import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.registry import Asked, MemoryImage, RegistryServer
    from wherry.image.store import ImageStore

PULLERS = 10


@pytest.fixture
def image(registry: RegistryServer) -> MemoryImage:
    """One layer of a few megabytes that do not compress, at app:latest."""
    image = make_image({"a": os.urandom(3_000_000)})
    registry.put_image("app", "latest", image)
    return image


def layer_of(image: MemoryImage) -> tuple[str, bytes]:
    digest = image.layers[0]["digest"]
    return digest, image.blobs[digest]


def at_layer(
    image: MemoryImage, *mischiefs: Mischief, method: str = "GET"
) -> Callable[[Asked], Mischief | None]:
    """Do `mischiefs` to the first requests for the image's layer, then nothing any more."""
    digest, _ = layer_of(image)

    def mischief(asked: Asked) -> Mischief | None:
        is_meant = asked.method == method and digest in asked.path and asked.count < len(mischiefs)
        return mischiefs[asked.count] if is_meant else None

    return mischief


def test_lost_connections_are_taken_up_where_they_broke(
    image: MemoryImage, flaky: FlakyProxy, store: ImageStore
) -> None:
    digest, blob = layer_of(image)
    flaky.mischief = at_layer(
        image, Mischief(cut_after=1_000_000), Mischief(cut_after=500_000), Mischief(cut_after=0)
    )

    pull(store, f"{flaky.host}/app")

    assert store.read_blob(digest) == blob
    assert flaky.served[f"/v2/app/blobs/{digest}"] == len(blob)


def test_registry_without_ranges_is_asked_for_the_whole_again(
    image: MemoryImage, flaky: FlakyProxy, store: ImageStore
) -> None:
    digest, blob = layer_of(image)
    whole = Mischief(status=200, body=blob)
    flaky.mischief = at_layer(image, Mischief(cut_after=1_000_000), whole)

    pull(store, f"{flaky.host}/app")

    assert store.read_blob(digest) == blob


def test_range_that_is_refused_is_asked_for_the_whole_again(
    image: MemoryImage, flaky: FlakyProxy, store: ImageStore
) -> None:
    digest, blob = layer_of(image)
    flaky.mischief = at_layer(image, Mischief(cut_after=1_000_000), Mischief(status=416))

    pull(store, f"{flaky.host}/app")

    assert store.read_blob(digest) == blob


def test_overloaded_registry_is_waited_for(
    image: MemoryImage, flaky: FlakyProxy, store: ImageStore
) -> None:
    digest, blob = layer_of(image)
    flaky.mischief = at_layer(
        image,
        Mischief(status=429, headers={"Retry-After": "0"}),
        Mischief(status=429, headers={"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}),
        Mischief(status=503),
        Mischief(status=500),
    )

    pull(store, f"{flaky.host}/app")

    assert store.read_blob(digest) == blob


def test_registry_that_wants_hours_is_not_waited_for(flaky: FlakyProxy, store: ImageStore) -> None:
    headers = {"Retry-After": "21600", "RateLimit-Limit": "100;w=21600"}
    flaky.mischief = lambda asked: Mischief(status=429, headers=headers)

    with pytest.raises(RegistryError, match="too many requests, 100 are allowed"):
        pull(store, f"{flaky.host}/app")

    assert flaky.count("GET", "manifests") == 1


def test_registry_that_stays_overloaded_is_an_error(flaky: FlakyProxy, store: ImageStore) -> None:
    flaky.mischief = lambda asked: Mischief(status=429)

    with pytest.raises(RegistryError, match="too many requests"):
        pull(store, f"{flaky.host}/app")


def test_connection_that_always_breaks_ends_the_pull_and_the_next_goes_on(
    image: MemoryImage, flaky: FlakyProxy, store: ImageStore
) -> None:
    digest, blob = layer_of(image)
    cuts = [Mischief(cut_after=1_000_000)] + [Mischief(cut_after=0)] * 40
    flaky.mischief = at_layer(image, *cuts)
    with pytest.raises(Interrupted, match="was lost"):
        pull(store, f"{flaky.host}/app")
    flaky.mischief = lambda asked: None

    pull(store, f"{flaky.host}/app")

    assert store.read_blob(digest) == blob
    assert flaky.served[f"/v2/app/blobs/{digest}"] == len(blob)


def test_registry_without_ranges_that_always_breaks_ends_the_pull(
    image: MemoryImage, flaky: FlakyProxy, store: ImageStore
) -> None:
    digest, blob = layer_of(image)
    flaky.mischief = lambda asked: (
        Mischief(status=200, body=blob, cut_after=1_000_000) if digest in asked.path else None
    )

    with pytest.raises(Interrupted, match="was lost"):
        pull(store, f"{flaky.host}/app")


def test_kept_part_that_is_damaged_is_fetched_anew(
    image: MemoryImage, flaky: FlakyProxy, store: ImageStore
) -> None:
    digest, blob = layer_of(image)
    with store.ingest(digest, len(blob)) as ingest:
        ingest.write(b"not what it should be")

    pull(store, f"{flaky.host}/app")

    assert store.read_blob(digest) == blob


def test_killed_pull_goes_on_where_it_was(
    image: MemoryImage, flaky: FlakyProxy, store: ImageStore
) -> None:
    digest, blob = layer_of(image)
    let_go = threading.Event()
    flaky.mischief = at_layer(image, Mischief(cut_after=2_000_000, hold=let_go))
    process = start_pull(f"{flaky.host}/app")
    try:
        wait_for_bytes(process, 1_000_000)
    finally:
        process.kill()
        process.communicate()
        let_go.set()

    pull(store, f"{flaky.host}/app")

    assert store.read_blob(digest) == blob
    asked = flaky.requests[-1].headers["Range"]
    assert 1_000_000 <= int(asked.removeprefix("bytes=").removesuffix("-")) <= 2_000_000


def test_ten_processes_fetch_a_layer_once(
    image: MemoryImage, flaky: FlakyProxy, store: ImageStore
) -> None:
    digest, blob = layer_of(image)

    processes = [start_pull(f"{flaky.host}/app") for _ in range(PULLERS)]
    errors = [process.communicate(timeout=120)[1] for process in processes]

    assert [process.returncode for process in processes] == [0] * PULLERS, errors
    assert store.read_blob(digest) == blob
    assert flaky.count("GET", digest) == 1
