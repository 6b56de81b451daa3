"""`docker save`: images as one tar, an OCI image layout and docker's format at once.

    oci-layout, index.json, blobs/sha256/…   an OCI image layout
    manifest.json                            docker's list of images, of the same blobs
    repositories                             their names, for old readers

Layers go as they are stored, an index as it is, with those of its platforms that are
there. The same images make the same bytes.
"""

from __future__ import annotations

import os

from wherry.errors import CorruptState
from wherry.image.reference import parse_reference
from wherry.image.store import CONTAINERD_NAME, NAME
from wherry.image.tar import DIRECTORY, Member, TarWriter
from wherry.lean import dump_json, load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from wherry.image.store import Image, ImageStore


def save(
    store: ImageStore,
    images: Sequence[tuple[Image, str]],
    write: Callable[[bytes], object],
    *,
    platform: str | None = None,
) -> None:
    """Write images, each with the name it is to have ("" for none), as one archive.

    With `platform` no other of an index is written, and no index. The caller holds
    `store.held()`.
    """
    contents = _Contents(store)
    for image, reference in images:
        contents.add(image, reference, whole=not platform)
    contents.write(TarWriter(write))


class _Contents:
    """What an archive is to hold."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._blobs: dict[str, int] = {}
        self._index: list[dict[str, Any]] = []
        self._docker: dict[str, dict[str, Any]] = {}
        self._repositories: dict[str, dict[str, str]] = {}

    def add(self, image: Image, reference: str, *, whole: bool) -> None:
        digest = image.descriptor["digest"]
        manifest = self._find(digest, image)
        if manifest is None or not self._take(manifest):
            raise CorruptState(f"image {reference or image.id} is not whole", hint="pull it again")
        if whole:
            self._take(digest)
        chosen = dict(image.descriptor) if whole else self._describe(manifest, image)
        if reference:
            annotations = image.descriptor.get("annotations") or {}
            names = {CONTAINERD_NAME: reference, NAME: reference}
            chosen["annotations"] = {**annotations, **names}
        self._index.append(chosen)
        self._tell_docker(image, reference)

    def _tell_docker(self, image: Image, reference: str) -> None:
        layers = [_blob_name(each["digest"]) for each in image.manifest["layers"]]
        entry = self._docker.setdefault(
            image.id, {"Config": _blob_name(image.id), "RepoTags": [], "Layers": layers}
        )
        if not reference:
            return
        named = parse_reference(reference)
        entry["RepoTags"].append(named.familiar())
        top = image.diff_ids[-1] if image.diff_ids else image.id
        tags = self._repositories.setdefault(named.familiar_name, {})
        tags[named.tag or "latest"] = top.rpartition(":")[2]

    def _describe(self, digest: str, image: Image) -> dict[str, Any]:
        media_type = image.manifest.get("mediaType") or image.descriptor["mediaType"]
        return {"mediaType": media_type, "digest": digest, "size": self._blobs[digest]}

    def _find(self, digest: str, image: Image) -> str | None:
        """The digest of the manifest that leads to the image's config, below `digest`."""
        if not self._store.has_blob(digest):
            return None
        document = self._document(digest)
        if "manifests" not in document:
            return digest if document["config"]["digest"] == image.id else None
        below = (self._find(each["digest"], image) for each in document["manifests"])
        return next(filter(None, below), None)

    def _take(self, digest: str) -> bool:
        """Add a manifest with all that it leads to, or an index with what is there of it."""
        if not self._store.has_blob(digest):
            return False
        document = self._document(digest)
        if "manifests" in document:
            for each in document["manifests"]:
                self._take(each["digest"])
        else:
            parts = [each["digest"] for each in (document["config"], *document["layers"])]
            if not all(map(self._store.has_blob, parts)):
                return False
            self._blobs.update((part, self._size(part)) for part in parts)
        self._blobs[digest] = self._size(digest)
        return True

    def _document(self, digest: str) -> dict[str, Any]:
        document: dict[str, Any] = load_json(self._store.read_blob(digest))
        return document

    def _size(self, digest: str) -> int:
        return os.stat(self._store.blob_path(digest)).st_size

    def write(self, archive: TarWriter) -> None:
        used = sorted({digest.partition(":")[0] for digest in self._blobs})
        for directory in ("blobs", *(f"blobs/{algorithm}" for algorithm in used)):
            archive.add(Member(directory, DIRECTORY, mode=0o755))
        for digest, size in sorted(self._blobs.items()):
            path = self._store.blob_path(digest)
            archive.add(Member(_blob_name(digest), size=size), _pieces(path))
        for name, document in self._documents().items():
            content = dump_json(document).encode()
            archive.add(Member(name, size=len(content)), [content])
        archive.close()

    def _documents(self) -> Mapping[str, Any]:
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": self._index,
        }
        documents = {
            "index.json": index,
            "manifest.json": list(self._docker.values()),
            "oci-layout": {"imageLayoutVersion": "1.0.0"},
        }
        if self._repositories:
            documents["repositories"] = self._repositories
        return documents


def _blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _pieces(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            yield piece
