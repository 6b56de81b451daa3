"""A disk that fills up while an image comes in."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING, Any

import pytest

from support.layers import entry, layer
from support.registry import digest_of
from wherry.errors import WherryError
from wherry.image import layers
from wherry.image.layers import StoredLayer
from wherry.image.store import ImageStore
from wherry_linux.constants import CLONE_NEWNS
from wherry_linux.syscalls import mount
from wherry_linux.userns import in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.linux


def on_a_small_disk(
    directory: Path, work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """`work()` where WHERRY_ROOT has room for a megabyte."""
    if os.geteuid():
        pytest.skip("only root can mount a file system to fill up")
    monkeypatch.setenv("WHERRY_ROOT", str(directory))

    def run() -> Any:
        mount("tmpfs", str(directory), "tmpfs", 0, "size=1m")
        return work()

    return in_child(run, CLONE_NEWNS, None)


def test_layer_that_does_not_fit_is_told_of_and_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = layer(entry("large", bytes(5_000_000)))
    packed = gzip.compress(plain)

    def work() -> list[Any]:
        store = ImageStore()
        digest = store.put_blob(packed)
        one = StoredLayer(
            store, {"mediaType": "x", "digest": digest, "size": len(packed)}, digest_of(plain)
        )
        try:
            layers.unpack([one], lambda function: function())
        except WherryError as error:
            return [error.message, error.hint, os.listdir(f"{tmp_path}/data/layers/sha256")]
        return []

    message, hint, left = on_a_small_disk(tmp_path, work, monkeypatch)

    assert message == "cannot unpack large: No space left on device"
    assert "the disk is full" in hint
    assert left == []


def test_blob_that_does_not_fit_is_told_of_and_gives_its_room_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> list[Any]:
        store = ImageStore()
        digest = digest_of(b"")
        try:
            with store.ingest(digest, 5_000_000) as ingest:
                while True:
                    ingest.write(bytes(100_000))
        except WherryError as error:
            return [error.message, os.stat(store.partial_path(digest)).st_size]

    message, size = on_a_small_disk(tmp_path, work, monkeypatch)

    assert message == "cannot store a layer: No space left on device"
    assert size == 0
