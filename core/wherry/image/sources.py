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
from wherry.files import Lock, make_dir, read_json, remove_file, write_atomic

if TYPE_CHECKING:
    from collections.abc import Collection

    from wherry.image.reference import Reference

_MAX_SOURCES = 8


def remember_source(digest: str, reference: Reference) -> None:
    """Note that `reference`'s repository has the blob."""
    path = _path(digest)
    make_dir(os.path.dirname(path))
    with Lock(f"{path}.lock" if os.name == "nt" else os.path.dirname(path)):
        known = _read(path)
        if known[:1] != [reference.name]:
            known = [reference.name, *(name for name in known if name != reference.name)]
            write_atomic(path, json.dumps(known[:_MAX_SOURCES]).encode())


def forget_sources(kept: Collection[str]) -> None:
    """Forget where blobs came from that are none of `kept`: they cannot be pushed from here."""
    directory = paths.blob_sources()
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        if name.replace("-", ":", 1) not in kept:
            remove_file(os.path.join(directory, name))


def source_of(digest: str, reference: Reference) -> str | None:
    """Another repository of `reference`'s registry that has the blob."""
    prefix = f"{reference.domain}/"
    for name in _read(_path(digest)):
        if name.startswith(prefix) and name != reference.name:
            return name.removeprefix(prefix)
    return None


def _path(digest: str) -> str:
    return os.path.join(paths.blob_sources(), digest.replace(":", "-"))


def _read(path: str) -> list[str]:
    try:
        known = read_json(path)
    except (FileNotFoundError, CorruptState):
        return []
    return [str(name) for name in known] if isinstance(known, list) else []
