"""Where blobs came from: the repositories that are known to have them.

A push asks the registry to take a blob over from such a repository instead of sending
it. It is a hint and no more: what is forgotten or wrong costs one upload.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from wherry import paths
from wherry.errors import CorruptState
from wherry.files import Lock, make_dir, read_json, write_atomic

if TYPE_CHECKING:
    from wherry.image.reference import Reference

_MAX_SOURCES = 8


def remember_source(digest: str, reference: Reference) -> None:
    """Note that `reference`'s repository has the blob."""
    path = paths.blob_sources(digest)
    make_dir(os.path.dirname(path))
    with Lock(f"{path}.lock" if os.name == "nt" else os.path.dirname(path)):
        known = _read(path)
        if known[:1] != [reference.name]:
            known = [reference.name, *(name for name in known if name != reference.name)]
            write_atomic(path, json.dumps(known[:_MAX_SOURCES]).encode())


def source_of(digest: str, reference: Reference) -> str | None:
    """Another repository of `reference`'s registry that has the blob."""
    prefix = f"{reference.domain}/"
    for name in _read(paths.blob_sources(digest)):
        if name.startswith(prefix) and name != reference.name:
            return name.removeprefix(prefix)
    return None


def _read(path: str) -> list[str]:
    try:
        known = read_json(path)
    except (FileNotFoundError, CorruptState):
        return []
    return [str(name) for name in known] if isinstance(known, list) else []
