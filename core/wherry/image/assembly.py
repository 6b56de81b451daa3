"""Images out of their parts: a config and layers become a manifest, and that an image."""

from __future__ import annotations

import os

from wherry.container.copy import remove_tree
from wherry.files import make_dir
from wherry.lean import dump_json, sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self

    from wherry.image.platform import Platform
    from wherry.image.store import ImageStore
    from wherry.oci.image_spec import Descriptor

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
GZIP_LAYER = f"{LAYER}+gzip"
ZSTD_LAYER = f"{LAYER}+zstd"


def put_image(
    store: ImageStore,
    config: dict[str, Any],
    layers: Sequence[Descriptor],
    annotations: Mapping[str, str] | None = None,
) -> tuple[str, Descriptor]:
    """Keep an image whose layers are in the store; its id and its manifest's descriptor.

    The caller holds `store.held()`, and gives it a name or keeps it.
    """
    content = dump_json(config).encode()
    image_id = store.put_blob(content)
    manifest, descriptor = manifest_of(
        {"mediaType": CONFIG, "digest": image_id, "size": len(content)}, layers, annotations
    )
    store.put_blob(manifest)
    return image_id, descriptor


def manifest_of(
    config: Descriptor, layers: Sequence[Descriptor], annotations: Mapping[str, str] | None = None
) -> tuple[bytes, Descriptor]:
    """The manifest of an image, and what describes it."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": list(layers),
    }
    if annotations:
        document["annotations"] = dict(annotations)
    content = dump_json(document).encode()
    digest = f"sha256:{sha256(content).hexdigest()}"
    return content, {"mediaType": MANIFEST, "digest": digest, "size": len(content)}


def put_index(store: ImageStore, entries: Sequence[tuple[Descriptor, Platform]]) -> Descriptor:
    """Keep an index of images that are in the store; what describes it."""
    manifests = []
    for descriptor, platform in entries:
        told = {"architecture": platform.architecture, "os": platform.os}
        if platform.variant:
            told["variant"] = platform.variant
        manifests.append({**descriptor, "platform": told})
    content = dump_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
    return {"mediaType": INDEX, "digest": store.put_blob(content), "size": len(content)}


def give_name(store: ImageStore, reference: str, descriptor: Descriptor) -> None:
    """Make it an image: with the name `reference`, or with "" without one."""
    if reference:
        store.tag(reference, descriptor)
    else:
        store.keep(descriptor)


class Workspace:
    """A directory on the store's file system for what is on its way into it; gone at the end.

    Only for who holds `store.held()`: what a killed process left, the next collection takes.
    """

    def __init__(self, store: ImageStore) -> None:
        self.directory = make_dir(f"{store.root}/partial/load.{os.getpid()}")

    def path(self, name: str) -> str:
        """The path of a file in it; `name` is ours, never an archive's."""
        return f"{self.directory}/{name}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        remove_tree(self.directory)
