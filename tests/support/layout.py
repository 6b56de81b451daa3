"""What an OCI image layout has to be, strictly by image-spec 1.1: `problems_of(directory)`."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_INDEX = "application/vnd.oci.image.index.v1+json"
_INDEXES = (_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
# RFC 6838, 4.2
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][\w!#$&^.+-]{0,126}/[A-Za-z0-9][\w!#$&^.+-]{0,126}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
# annotations.md, `org.opencontainers.image.ref.name`
_COMPONENT = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_REF_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")


def problems_of(root: str, *, is_collected: bool = False) -> list[str]:
    """What is wrong with a layout; with `is_collected` a blob that nothing needs is wrong too."""
    return list(_Layout(Path(root), is_collected).problems())


class _Layout:
    def __init__(self, root: Path, is_collected: bool) -> None:
        self._root = root
        self._is_collected = is_collected
        self._needed: set[str] = set()

    def problems(self) -> Iterator[str]:
        header = _json(self._root / "oci-layout")
        if header != {"imageLayoutVersion": "1.0.0"}:
            yield f"oci-layout says {header}"
        index = _json(self._root / "index.json")
        if index.get("schemaVersion") != 2 or index.get("mediaType") != _INDEX:
            yield "index.json is no image index"
        names = []
        for entry in index["manifests"]:
            yield from self._descriptor(entry, "index.json")
            name = (entry.get("annotations") or {}).get("org.opencontainers.image.ref.name")
            if name is not None:
                names.append(name)
                if not _REF_NAME.fullmatch(name):
                    yield f"{name} is no ref.name"
            if entry["mediaType"] not in (*_INDEXES, *_MANIFESTS):
                yield f"index.json leads to a {entry['mediaType']}"
            yield from self._document(entry)
        if len(names) != len(set(names)):
            yield f"a name is there twice: {names}"
        yield from self._blobs()

    def _blobs(self) -> Iterator[str]:
        for algorithm in os.listdir(self._root / "blobs"):
            for path in (self._root / "blobs" / algorithm).iterdir():
                digest = f"{algorithm}:{path.name}"
                if not path.is_file() or path.is_symlink() or not _DIGEST.fullmatch(digest):
                    yield f"blobs/{algorithm}/{path.name} is no blob"
                elif hashlib.new(algorithm, path.read_bytes()).hexdigest() != path.name:
                    yield f"{digest} has another content"
                elif self._is_collected and digest not in self._needed:
                    yield f"{digest} is needed by nothing"

    def _descriptor(self, descriptor: Any, where: str) -> Iterator[str]:
        if not _MEDIA_TYPE.fullmatch(str(descriptor.get("mediaType"))):
            yield f"{where}: a descriptor has the media type {descriptor.get('mediaType')!r}"
        if not _DIGEST.fullmatch(str(descriptor.get("digest"))):
            yield f"{where}: a descriptor has the digest {descriptor.get('digest')!r}"
            return
        self._needed.add(descriptor["digest"])
        annotations = descriptor.get("annotations", {})
        if not isinstance(annotations, dict) or not all(
            isinstance(each, str) for each in annotations.values()
        ):
            yield f"{where}: a descriptor has the annotations {annotations!r}"
        path = self._path(descriptor["digest"])
        if path.exists() and descriptor.get("size") != path.stat().st_size:
            yield f"{where}: {descriptor['digest']} is said to have {descriptor.get('size')} bytes"

    def _document(self, descriptor: Any) -> Iterator[str]:
        """Of an image everything must be there; of an index what its platforms here need."""
        digest = descriptor["digest"]
        path = self._path(digest)
        if not path.exists():
            yield f"{digest} is missing"
            return
        document = _json(path)
        if document.get("schemaVersion") != 2:
            yield f"{digest} has the schema {document.get('schemaVersion')}"
        if document.get("mediaType", descriptor["mediaType"]) != descriptor["mediaType"]:
            yield f"{digest} has not the media type that is said of it"
        if descriptor["mediaType"] in _INDEXES:
            for each in document["manifests"]:
                yield from self._descriptor(each, digest)
                if self._path(each["digest"]).exists():
                    yield from self._document(each)
            return
        for each in (document["config"], *document["layers"]):
            yield from self._descriptor(each, digest)
            if not self._path(each["digest"]).exists():
                yield f"{each['digest']} of {digest} is missing"

    def _path(self, digest: str) -> Path:
        algorithm, _, encoded = digest.partition(":")
        return self._root / "blobs" / algorithm / encoded


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())
