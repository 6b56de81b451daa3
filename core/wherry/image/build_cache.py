"""The build cache: which layer a step made, by what went into it.

    DATA/build-cache/<key>.json   the layer of a step, and what the step was
    DATA/build-cache/<two digits>.lock   held by who carries out a step whose key begins so

A key is a digest over the step and the layers below it: no times, but contents, modes and
owners. Builds that run at the same time carry a step out once. By keys of its own a store
finds layers that it has made itself, whatever is below them; no other cache brings such.
"""

from __future__ import annotations

import os

from wherry import paths
from wherry.errors import CorruptState
from wherry.files import Lock, make_dir, read_json, remove_file, write_json
from wherry.image.layers import layer_path
from wherry.image.streams import has_stream
from wherry.lean import dump_json, sha256
from wherry.timestamps import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from wherry.image.store import ImageStore

CACHE = "io.wherry.build.cache"
"""The key of an image's config that tells of the steps that made its layers."""

_RECORD = {
    "Keys!": [str],
    "Own": [str],
    "DiffId!": str,
    "Descriptor!": {"mediaType!": str, "digest!": str, "size!": int},
    "Count!": int,
    "Step": str,
    "Created": str,
    "Size": int,
    "Note": {"*": str},
}
_HEX = frozenset("0123456789abcdef")
# Whatever makes other layers of the same step gets another number.
_VERSION = 4


def key_of(step: Sequence[Any], chain: Sequence[str]) -> str:
    """The key of a step, as JSON can say it, on the layers with these diff ids."""
    return sha256(dump_json([_VERSION, list(step), list(chain)]).encode()).hexdigest()


class BuildCache:
    """The cache of this user."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._directory = paths.build_cache()

    def find(self, key: str) -> dict[str, Any] | None:
        """The record of a step whose layer is still here."""
        path = self._path(key)
        try:
            record: dict[str, Any] = read_json(path, _RECORD)
            os.utime(path)
        except (OSError, CorruptState):
            return None
        return record if self._is_whole(record) else None

    def find_own(self, key: str) -> dict[str, Any] | None:
        """The record of a layer that was made here, by a key of its store's own."""
        record = self.find(key)
        return record if record and key in (record.get("Own") or ()) else None

    def _is_whole(self, record: dict[str, Any]) -> bool:
        """Whether the layer of a step is still here."""
        if not record["Count"]:
            return True
        diff_id = record["DiffId"]
        return os.path.isdir(layer_path(diff_id)) and (
            has_stream(diff_id) or self._store.has_blob(record["Descriptor"]["digest"])
        )

    def keep(self, keys: Sequence[str], step: str, packed: dict[str, Any]) -> dict[str, Any]:
        """Record the layer that a step has made, as PackedLayer tells of it, with "own" keys."""
        own = list(packed.get("own", ()))
        record = {**_record(keys, step, packed), "Own": own}
        self._write([*keys, *own], record)
        return record

    def note(self, key: str, step: str, note: Mapping[str, str]) -> None:
        """Keep what is to be known of something that makes no layer."""
        nothing = {"mediaType": "", "digest": "", "size": 0}
        packed = {"diff_id": "", "descriptor": nothing, "count": 0}
        self.take({**_record([key], step, packed), "Note": dict(note)})

    def take(self, record: dict[str, Any]) -> None:
        """Keep a record, which another cache may have made."""
        self._write(record["Keys"], {**record, "Own": []})

    def _write(self, keys: Iterable[str], record: dict[str, Any]) -> None:
        make_dir(self._directory)
        for key in keys:
            if len(key) == 64 and _HEX.issuperset(key):
                write_json(self._path(key), record)

    def locked(self, key: str) -> Lock:
        """Nobody else carries the step out while this is held."""
        # A few locks for all keys: their files stay.
        return Lock(f"{make_dir(self._directory)}/{key[:2]}.lock")

    def records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every key, and its record."""
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return
        for name in names:
            if not name.endswith(".json"):
                continue
            try:
                yield name.removesuffix(".json"), read_json(f"{self._directory}/{name}", _RECORD)
            except (OSError, CorruptState):
                continue

    def used(self) -> tuple[set[str], set[str]]:
        """The digests of the blobs, and the diff ids, that records lead to."""
        found = [record for _, record in self.records() if record["Count"]]
        return (
            {record["Descriptor"]["digest"] for record in found},
            {record["DiffId"] for record in found},
        )

    def last_used(self, key: str) -> float:
        """When a record was last of use, in seconds since the epoch."""
        return os.stat(self._path(key)).st_mtime

    def forget(self, key: str) -> None:
        """Remove a record; the layer goes with the next collection."""
        remove_file(self._path(key))

    def _path(self, key: str) -> str:
        return f"{self._directory}/{key}.json"


def _record(keys: Sequence[str], step: str, packed: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Keys": list(keys),
        "DiffId": packed["diff_id"],
        "Descriptor": packed["descriptor"],
        "Count": packed["count"],
        "Step": step,
        "Created": now(),
    }
