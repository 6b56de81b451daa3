"""Blobs of layers that were made here: they have none until an image leaves."""

from __future__ import annotations

from wherry.files import read_json, write_json
from wherry.image.assembly import GZIP_LAYER, LAYER, Workspace
from wherry.image.layers import layer_directory
from wherry.image.streams import has_stream, write_stream
from wherry.lean import dump_json, load_json, sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from wherry.image.store import Image, ImageStore
    from wherry.oci.image_spec import Descriptor

    Unshared = Callable[[Callable[[], Any]], Any]

_RECORD = {"size!": int, "blob": {"mediaType!": str, "digest!": str, "size!": int}}


def is_without_blob(store: ImageStore, descriptor: Descriptor) -> bool:
    """Whether a layer of a manifest is here as its files only."""
    return (
        descriptor["mediaType"] == LAYER
        and not store.has_blob(descriptor["digest"])
        and has_stream(descriptor["digest"])
    )


def complete(store: ImageStore, image: Image, unshared: Unshared) -> None:
    """Have a blob for each layer, as manifests tell of them: not compressed.

    The caller holds `store.held()`; the next collection removes them again.
    """
    for descriptor in _layers(store, image.descriptor["digest"]):
        if is_without_blob(store, descriptor):
            _make(store, unshared, lambda path, each=descriptor: _write(path, each["digest"]))  # type: ignore[misc]


def _layers(store: ImageStore, digest: str) -> Iterator[Descriptor]:
    """The layers of a manifest, or of all of an index that is here."""
    if not store.has_blob(digest):
        return
    document = load_json(store.read_blob(digest))
    yield from document.get("layers") or ()
    for each in document.get("manifests") or ():
        yield from _layers(store, each["digest"])


def compress(store: ImageStore, image: Image, unshared: Unshared) -> Descriptor:
    """Have the layers that were made here compressed, as registries want them.

    The image gets another manifest by that, or index, in place of the one that it had: its
    descriptor. The caller holds `store.held()`.
    """
    descriptor = _with_compressed(store, image.descriptor, unshared)
    if descriptor != image.descriptor:
        store.replace(image.descriptor["digest"], descriptor)
    return descriptor


def _with_compressed(store: ImageStore, descriptor: Descriptor, unshared: Unshared) -> Descriptor:
    """What describes a manifest or an index once the layers that it leads to are compressed."""
    if not store.has_blob(descriptor["digest"]):
        return descriptor  # of another platform
    document = load_json(store.read_blob(descriptor["digest"]))
    parts, change = ("layers", compressed)
    if "manifests" in document:
        parts, change = ("manifests", _with_compressed)
    ready = [change(store, each, unshared) for each in document.get(parts) or ()]
    if ready == (document.get(parts) or []):
        return descriptor
    content = dump_json({**document, parts: ready}).encode()
    return {**descriptor, "digest": store.put_blob(content), "size": len(content)}


def compressed(store: ImageStore, descriptor: Descriptor, unshared: Unshared) -> Descriptor:
    """What describes a layer in a form for registries; the caller holds `store.held()`."""
    diff_id = descriptor["digest"]
    if descriptor["mediaType"] != LAYER or not has_stream(diff_id):
        return descriptor
    path = f"{layer_directory(diff_id)}/layer.json"
    record = read_json(path, _RECORD)
    known: Descriptor | None = record.get("blob")
    if known is None or not store.has_blob(known["digest"]):
        known = _make(store, unshared, lambda path: _write_compressed(path, diff_id))
        write_json(path, {**record, "blob": known}, mode=0o644)
    return known


def _make(store: ImageStore, unshared: Unshared, write: Callable[[str], Descriptor]) -> Descriptor:
    with Workspace(store) as workspace:
        path = workspace.path("blob")
        made: Descriptor = unshared(lambda: write(path))
        store.adopt(path, made["digest"])
    return made


def _write(path: str, diff_id: str) -> Descriptor:
    with open(path, "wb") as file:
        write_stream(diff_id, file.write)
        return {"mediaType": LAYER, "digest": diff_id, "size": file.tell()}


def _write_compressed(path: str, diff_id: str) -> Descriptor:
    from wherry.image.gzip import GzipWriter

    digest, deflate = sha256(), GzipWriter()
    with open(path, "wb") as file:

        def put(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        write_stream(diff_id, lambda piece: put(deflate.piece(piece)))
        put(deflate.end())
        name = f"sha256:{digest.hexdigest()}"
        return {"mediaType": GZIP_LAYER, "digest": name, "size": file.tell()}
