"""Removing what no image leads to: blobs, and unpacked layers.

Whoever brings blobs holds `ImageStore.held()` shared until their name is written; the
collection takes the same lock alone, and leaves the work to a later one where it cannot
have it. So nothing is taken from under a pull, and a removal never waits for one.
"""

from __future__ import annotations

import os
import time

from wherry import paths
from wherry.container.copy import remove_tree
from wherry.errors import Conflict, WherryError
from wherry.files import remove_file
from wherry.image.build_cache import BuildCache
from wherry.image.digests import LENGTHS
from wherry.image.layers import layer_size
from wherry.image.sources import forget_sources
from wherry.image.store import INDEXES
from wherry.image.streams import has_stream
from wherry.lean import load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from wherry.image.store import ImageStore

    Unshared = Callable[[Callable[[], Any]], Any]

# Seconds after which an interrupted pull is not waited for any more.
_FORGOTTEN = 7 * 24 * 3600


def collect(store: ImageStore, used_layers: Iterable[str], unshared: Unshared) -> int:
    """Remove what nothing leads to; the bytes that gave back.

    `used_layers` are the diff ids of containers, which outlive their images. What builds
    keep for later ones stays, too.
    """
    try:
        with store.alone():
            _remove_drafts(store, unshared)
            digests, diff_ids = _reachable(store)
            cached_blobs, cached_layers = BuildCache(store).used()
            digests |= cached_blobs
            diff_ids |= cached_layers
            forget_sources(digests)
            # Those that can be made again were for what is over now.
            digests = {digest for digest in digests if not _is_stream(digest)}
            return _remove_blobs(store, digests) + _remove_layers(
                diff_ids | set(used_layers), unshared
            )
    except Conflict:
        return 0  # something is being pulled


def _is_stream(digest: str) -> bool:
    return digest.startswith("sha256:") and has_stream(digest)


def _remove_drafts(store: ImageStore, unshared: Unshared) -> None:
    """Remove what killed processes have left half-made; nobody makes anything now."""
    for name in _names_in(f"{store.root}/partial"):
        path = f"{store.root}/partial/{name}"
        if name.startswith("load.") or _is_older(path, _FORGOTTEN):
            remove_tree(path)
    blobs = [f"{store.root}/blobs/{algorithm}" for algorithm in LENGTHS]
    for directory in (paths.build_cache(), *blobs):
        _remove_files(directory)
    # Names are also written by who holds nothing but their lock.
    with store.locked():
        _remove_files(store.root)
    directory = f"{paths.layers()}/sha256"
    for name in _names_in(directory):
        if name.endswith((".tmp", ".gone")):
            _remove(f"{directory}/{name}", unshared)
        elif name.endswith(".lock"):
            remove_file(f"{directory}/{name}")


def _remove_files(directory: str) -> None:
    """Remove the drafts of small files."""
    for name in _names_in(directory):
        if name.endswith(".tmp"):
            remove_file(f"{directory}/{name}")


def _is_older(path: str, seconds: int) -> bool:
    try:
        return time.time() - os.stat(path).st_mtime > seconds
    except FileNotFoundError:
        return False


def _reachable(store: ImageStore) -> tuple[set[str], set[str]]:
    """The digests of the blobs, and the diff ids, that names lead to."""
    digests: set[str] = set()
    diff_ids: set[str] = set()
    waiting = [entry["digest"] for entry in store.entries()]
    while waiting:
        digest = waiting.pop()
        if digest in digests or not store.has_blob(digest):
            continue
        digests.add(digest)
        try:
            document: dict[str, Any] = load_json(store.read_blob(digest))
        except (ValueError, WherryError):
            continue  # a damaged blob leads nowhere
        if document.get("mediaType") in INDEXES or "manifests" in document:
            waiting += [entry["digest"] for entry in document["manifests"]]
            continue
        digests.update(layer["digest"] for layer in document.get("layers") or ())
        config = (document.get("config") or {}).get("digest")
        if config and store.has_blob(config):
            digests.add(config)
            diff_ids.update(_diff_ids(store, config))
    return digests, diff_ids


def _diff_ids(store: ImageStore, config: str) -> list[str]:
    try:
        found: list[str] = load_json(store.read_blob(config))["rootfs"]["diff_ids"]
    except (ValueError, KeyError, TypeError, WherryError):
        return []
    return found


def _remove_blobs(store: ImageStore, digests: set[str]) -> int:
    reclaimed = 0
    for algorithm in LENGTHS:
        directory = f"{store.root}/blobs/{algorithm}"
        for name in _names_in(directory):
            if f"{algorithm}:{name}" not in digests and not name.endswith(".tmp"):
                reclaimed += os.lstat(f"{directory}/{name}").st_size
                remove_tree(f"{directory}/{name}")
    return reclaimed


def _remove_layers(diff_ids: set[str], unshared: Unshared) -> int:
    reclaimed = 0
    directory = f"{paths.layers()}/sha256"
    doomed = []
    for name in _names_in(directory):
        if "." in name or f"sha256:{name}" in diff_ids:
            continue
        reclaimed += layer_size(f"sha256:{name}")
        # Under another name it is no layer any more, wherever the rest is cut short.
        grave = f"{directory}/{name}.gone"
        os.rename(f"{directory}/{name}", grave)
        doomed.append(grave)
    for grave in doomed:
        _remove(grave, unshared)
    return reclaimed


def _remove(directory: str, unshared: Unshared) -> None:
    try:
        remove_tree(directory)
    except PermissionError:
        # Files of a container's other users, and what they have closed to us.
        unshared(lambda: remove_tree(directory))


def _names_in(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
