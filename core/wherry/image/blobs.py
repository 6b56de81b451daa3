"""Blobs of layers that were made here: they have none until an image leaves."""

from __future__ import annotations

from wherry.files import read_json, write_json
from wherry.image.assembly import GZIP_LAYER, LAYER, Workspace, manifest_of
from wherry.image.layers import layer_directory
from wherry.image.streams import has_stream, write_stream
from wherry.lean import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
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
    """Have a blob for each layer, as the manifest tells of them: not compressed.

    The caller holds `store.held()`; the next collection removes them again.
    """
    for descriptor in image.manifest["layers"]:
        if is_without_blob(store, descriptor):
            _make(store, unshared, lambda path, each=descriptor: _write(path, each["digest"]))  # type: ignore[misc]


def compress(store: ImageStore, image: Image, unshared: Unshared) -> Descriptor:
    """Have the layers that were made here compressed, as registries want them.

    The image gets another manifest by that, in place of the one that it had: its descriptor.
    The caller holds `store.held()`.
    """
    layers = image.manifest["layers"]
    ready = [compressed(store, each, unshared) for each in layers]
    if ready == layers:
        return image.descriptor
    content, descriptor = manifest_of(
        image.manifest["config"], ready, image.manifest.get("annotations")
    )
    store.put_blob(content)
    store.replace(image.descriptor["digest"], descriptor)
    return descriptor


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
