"""A cache that another store has left brings steps, but nothing about what was made here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from wherry.image.build_cache import BuildCache, key_of
from wherry.image.store import ImageStore

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="images are built on Linux only")

STEP, OWN = key_of(["a step"], ()), key_of(["an outline"], ())
# A step that makes no layer needs none to be found.
PACKED = {
    "diff_id": "",
    "descriptor": {"mediaType": "", "digest": "", "size": 0},
    "count": 0,
    "own": [OWN],
}


@pytest.fixture
def cache(own_world: Path) -> BuildCache:
    return BuildCache(ImageStore(str(own_world / "images")))


def test_a_layer_is_found_by_keys_of_its_own_store(cache: BuildCache) -> None:
    record = cache.keep([STEP], "COPY a b", PACKED)

    assert cache.find(STEP) == cache.find_own(OWN) == record
    assert cache.find_own(STEP) is None


def test_no_other_cache_brings_such_keys(cache: BuildCache) -> None:
    record = cache.keep([STEP], "COPY a b", PACKED)
    cache.forget(STEP)
    cache.forget(OWN)

    cache.take({**record, "Keys": [STEP, OWN], "Own": [OWN]})

    assert cache.find(STEP) is not None
    assert cache.find_own(OWN) is None
