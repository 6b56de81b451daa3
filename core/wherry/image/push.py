"""From the image store to a registry: blobs first, then manifests, the tag last."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from wherry.errors import NotFound, UsageError, WherryError
from wherry.image.connect import connect
from wherry.image.parallel import in_parallel
from wherry.image.platform import choose_manifest, parse_platform
from wherry.image.progress import Progress
from wherry.image.registry import INDEXES, read_manifest
from wherry.image.sources import remember_source, source_of
from wherry.image.upload import upload_blob
from wherry.values import value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, BinaryIO

    from wherry.image.reference import Reference
    from wherry.image.registry import Manifest, Registry
    from wherry.image.store import ImageStore
    from wherry.oci.image_spec import Descriptor


# How deep indexes lie in each other.
_MAX_NESTING = 4


@value
class Pushed:
    """What now stands in the registry."""

    reference: Reference
    digest: str
    size: int


def push_images(
    store: ImageStore,
    images: Sequence[tuple[Reference, Descriptor]],
    *,
    platform: str | None = None,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> list[Pushed]:
    """Put images under tags of one repository (of several with `--all-tags`).

    Of an index the manifests that the store has go with it; where some are missing, or
    with `platform`, one manifest goes alone, as docker does it.
    """
    first = images[0][0]
    progress = progress or Progress()
    registry = registry or connect(first, progress)
    progress.message(f"The push refers to repository [{first.name}]")
    return [
        _Push(store, registry, reference, progress).run(descriptor, platform)
        for reference, descriptor in images
    ]


class _Push:
    """One image on its way into a registry."""

    def __init__(
        self, store: ImageStore, registry: Registry, reference: Reference, progress: Progress
    ) -> None:
        self._store = store
        self._registry = registry
        self._reference = reference
        self._progress = progress
        self._cancelled = threading.Event()

    def run(self, descriptor: Descriptor, platform: str | None) -> Pushed:
        if self._reference.digest:
            raise UsageError("cannot push a digest reference", hint="push a tag of it")
        top, manifests = self._what_to_push(descriptor, platform)
        layers: dict[str, Mapping[str, Any]] = {}
        configs: dict[str, Mapping[str, Any]] = {}
        for manifest in manifests:
            if manifest.media_type in INDEXES:
                continue
            document = manifest.document()
            layers |= {layer["digest"]: layer for layer in document["layers"]}
            configs[document["config"]["digest"]] = document["config"]
        for layer in layers.values():
            self._progress.update(_short(layer), "Preparing")
        in_parallel(self._push_layer, list(layers.values()), self._cancelled)
        for config in configs.values():
            self._push_blob(config, Progress())
        self._progress.settle()
        for manifest in manifests:
            if manifest.digest != top.digest:
                target = self._reference.with_digest(manifest.digest)
                self._registry.put_manifest(target, manifest.content, manifest.media_type)
        digest = self._registry.put_manifest(self._reference, top.content, top.media_type)
        size = len(top.content)
        self._progress.message(f"{self._reference.tag}: digest: {digest} size: {size}")
        return Pushed(reference=self._reference, digest=digest, size=size)

    # --- what goes ----------------------------------------------------------------

    def _what_to_push(
        self, descriptor: Mapping[str, Any], platform: str | None
    ) -> tuple[Manifest, list[Manifest]]:
        """The manifest or index that gets the tag, and all that it leads to, in order."""
        top = self._read(descriptor)
        if top.media_type not in INDEXES:
            return top, [top]
        entries = top.document()["manifests"]
        if platform:
            entry = choose_manifest(entries, parse_platform(platform))
            if not self._is_whole(entry):
                raise NotFound(
                    f"image {self._reference.familiar()} is here without platform {platform}"
                )
            return self._what_to_push(entry, platform)
        whole = [entry for entry in entries if self._is_whole(entry)]
        if len(whole) == len(entries):
            return top, [part for entry in whole for part in self._parts(entry)]
        images = [entry for entry in whole if not _is_attestation(entry)]
        if len(images) != 1:
            raise NotFound(
                f"cannot push {self._reference.familiar()}: its index names platforms that "
                "are not here",
                hint="--platform pushes one of those that are",
            )
        self._progress.message(
            "Note: not all platforms of the index are here; pushing the only one that is"
        )
        return self._what_to_push(images[0], None)

    def _parts(self, entry: Mapping[str, Any]) -> list[Manifest]:
        """A manifest, or an index after what it leads to."""
        manifest = self._read(entry)
        inner = manifest.document()["manifests"] if manifest.media_type in INDEXES else ()
        return [*(part for each in inner for part in self._parts(each)), manifest]

    def _is_whole(self, entry: Mapping[str, Any], depth: int = 0) -> bool:
        if depth > _MAX_NESTING or not self._store.has_blob(entry["digest"]):
            return False
        manifest = self._read(entry)
        document = manifest.document()
        if manifest.media_type in INDEXES:
            return all(self._is_whole(each, depth + 1) for each in document["manifests"])
        return all(
            self._store.has_blob(blob["digest"])
            for blob in (*document["layers"], document["config"])
        )

    def _read(self, descriptor: Mapping[str, Any]) -> Manifest:
        return read_manifest(
            self._store.read_blob(descriptor["digest"]),
            self._reference.with_digest(descriptor["digest"]),
            descriptor["mediaType"],
        )

    # --- blobs --------------------------------------------------------------------

    def _push_layer(self, layer: Mapping[str, Any]) -> None:
        self._push_blob(layer, self._progress)

    def _push_blob(self, blob: Mapping[str, Any], progress: Progress) -> None:
        digest, size, short = blob["digest"], blob["size"], _short(blob)
        if self._registry.has_blob(self._reference, digest):
            progress.update(short, "Layer already exists")
            remember_source(digest, self._reference)
            return
        other = source_of(digest, self._reference)
        if not digest.startswith("sha256:"):
            other = None  # docker's registry mounts it by its sha256, and knows no other then

        def open_source() -> BinaryIO:
            return open(self._store.blob_path(digest), "rb")

        def on_progress(sent: int) -> None:
            if self._cancelled.is_set():
                raise WherryError("cancelled")
            progress.update(short, "Pushing", sent, size)

        is_mounted = upload_blob(
            self._registry,
            self._reference,
            digest,
            size,
            open_source,
            mount_from=other,
            on_progress=on_progress,
        )
        progress.update(short, f"Mounted from {other}" if is_mounted else "Pushed")
        remember_source(digest, self._reference)


def _is_attestation(entry: Mapping[str, Any]) -> bool:
    return (entry.get("platform") or {}).get("architecture") == "unknown"


def _short(blob: Mapping[str, Any]) -> str:
    return str(blob["digest"]).partition(":")[2][:12]
