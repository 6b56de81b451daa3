"""`builder du` and `builder prune`: what the cache holds, and making it less."""

from __future__ import annotations

import os
import time

from wherry import paths
from wherry.container.copy import remove_tree, tree_size
from wherry.errors import Conflict
from wherry.files import Lock
from wherry.image.build_cache import BuildCache
from wherry.image.layers import layer_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.engine import Engine


def usage(engine: Engine) -> list[dict[str, Any]]:
    """What is kept: ID, Size, LastUsed (seconds), InUse (by an image), Step; the newest first."""
    cache = BuildCache(engine.image_store)
    used = {diff_id for image in engine.image_store.images() for diff_id in image.diff_ids}
    found = []
    for key, record in cache.records():
        found.append(
            {
                "ID": key,
                "Size": layer_size(record["DiffId"]) if record["Count"] else 0,
                "LastUsed": cache.last_used(key),
                "InUse": record["Count"] > 0 and record["DiffId"] in used,
                "Step": record.get("Step", ""),
            }
        )
    found += [_place_usage(engine, place) for place in _places()]
    return sorted(found, key=lambda one: one["LastUsed"], reverse=True)


def _place_usage(engine: Engine, place: str) -> dict[str, Any]:
    size = engine.runtime.unshared(lambda: tree_size(place))
    is_mount = os.path.dirname(place) == paths.build_mounts()
    return {
        "ID": os.path.basename(place),
        "Size": size,
        "LastUsed": os.stat(place).st_mtime,
        "InUse": False,
        "Step": "a cache mount" if is_mount else "a context of another host",
    }


def prune(engine: Engine, *, everything: bool, before: float | None) -> tuple[list[str], int]:
    """Forget what no image uses, or `everything`; what that was, and the bytes it gave back.

    `before`: only what was not used since then, in seconds since the epoch.
    """
    cache = BuildCache(engine.image_store)
    limit = time.time() + 1 if before is None else before
    gone: list[str] = []
    size = 0
    places = {os.path.basename(place): place for place in _places()}
    for entry in usage(engine):
        if entry["LastUsed"] >= limit or (entry["InUse"] and not everything):
            continue
        if place := places.get(entry["ID"]):
            if not _remove_place(engine, place):
                continue
            size += entry["Size"]
        else:
            cache.forget(entry["ID"])
        gone.append(entry["ID"])
    return gone, size + engine.images.collect()


def _remove_place(engine: Engine, place: str) -> bool:
    try:
        with Lock(place, wait=False, create=False):
            engine.runtime.unshared(lambda: remove_tree(place))
    except (Conflict, FileNotFoundError):
        return False  # a step uses it
    return True


def _places() -> list[str]:
    """The directories that builds keep: what cache mounts hold, and copies of contexts."""
    found = []
    for directory in (paths.build_mounts(), paths.build_contexts()):
        try:
            found += [os.path.join(directory, name) for name in os.listdir(directory)]
        except FileNotFoundError:
            continue
    return found
