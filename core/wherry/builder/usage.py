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
from wherry.timestamps import rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.engine import Engine


def usage(engine: Engine) -> list[dict[str, Any]]:
    """What is kept, the newest first: docker's words, and LastUsed (seconds), Step, Keys.

    No layer is counted twice; InUse says that an image has it.
    """
    cache = BuildCache(engine.image_store)
    used = {diff_id for image in engine.image_store.images() for diff_id in image.diff_ids}
    steps: dict[tuple[str, ...], dict[str, Any]] = {}
    for key, record in cache.records():
        # A step that is found by several keys is one step.
        known = steps.setdefault(tuple(sorted(record["Keys"])), {**record, "Files": []})
        # Not all of them are in the record: one that a cache has brought knows no other's.
        known["Files"].append(key)
        known["LastUsed"] = max(known.get("LastUsed", 0.0), cache.last_used(key))
    found = [_place_usage(engine, place) for place in _places()]
    counted: set[str] = set()
    for record in steps.values():
        diff_id = record["DiffId"]
        is_new = record["Count"] > 0 and diff_id not in counted
        counted.add(diff_id)
        found.append(
            {
                "ID": record["Keys"][0],
                "Type": "regular",
                "Size": layer_size(diff_id) if is_new else 0,
                "CreatedAt": record.get("Created") or "",
                "LastUsed": record["LastUsed"],
                "InUse": record["Count"] > 0 and diff_id in used,
                "Step": record.get("Step", ""),
                "Keys": record["Files"],
            }
        )
    return sorted(found, key=lambda one: one["LastUsed"], reverse=True)


def documents(engine: Engine) -> list[dict[str, Any]]:
    """`BuildCache` of docker's /system/df."""
    return [
        {
            "ID": each["ID"],
            "Type": each["Type"],
            "Description": each["Step"],
            "InUse": each["InUse"],
            # Its layer is also an image's, and counted there.
            "Shared": each["InUse"],
            "Size": each["Size"],
            "CreatedAt": each["CreatedAt"],
            "LastUsedAt": rfc3339(int(each["LastUsed"] * 1_000_000_000)),
        }
        for each in usage(engine)
    ]


def _place_usage(engine: Engine, place: str) -> dict[str, Any]:
    size = engine.runtime.unshared(lambda: tree_size(place))
    is_mount = os.path.dirname(place) == paths.build_mounts()
    return {
        "ID": os.path.basename(place),
        "Type": "exec.cachemount" if is_mount else "source.local",
        "Size": size,
        "CreatedAt": "",
        "LastUsed": os.stat(place).st_mtime,
        "InUse": False,
        "Step": "a cache mount" if is_mount else "a context of another host",
        "Keys": [],
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
            for key in entry["Keys"]:
                cache.forget(key)
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
