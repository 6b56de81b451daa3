"""What refers to an image by `subject`: signatures, and whatever else belongs to it.

A registry that lists it by itself says `OCI-Subject`. For others who pushes keeps the list,
as an index under the tag `sha256-…` (distribution-spec, "Referrers Tag Schema").
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from wherry.errors import NotFound
from wherry.image.reference import check_digest
from wherry.image.registry import OCI_INDEX

if TYPE_CHECKING:
    from typing import Any

    from wherry.image.reference import Reference
    from wherry.image.registry import Manifest, Registry


def add_referrer(registry: Registry, reference: Reference, manifest: Manifest) -> None:
    """Put a manifest, where it has a subject, into the list of what refers to that."""
    document = manifest.document()
    subject = document.get("subject")
    if not isinstance(subject, dict):
        return
    digest = str(subject.get("digest"))
    check_digest(digest)
    algorithm, _, encoded = digest.partition(":")
    listed = reference.with_tag(f"{algorithm[:32]}-{encoded[:64]}")
    known = _known(registry, listed)
    if any(entry.get("digest") == manifest.digest for entry in known):
        return
    config = document.get("config") or {}
    entry: dict[str, Any] = {
        **manifest.descriptor,
        "artifactType": document.get("artifactType") or config.get("mediaType"),
    }
    if annotations := document.get("annotations"):
        entry["annotations"] = annotations
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*known, entry]}
    registry.put_manifest(listed, json.dumps(index).encode(), OCI_INDEX)


def _known(registry: Registry, listed: Reference) -> list[dict[str, Any]]:
    try:
        entries = registry.manifest(listed).document().get("manifests")
    except NotFound:
        return []
    return [entry for entry in entries or () if isinstance(entry, dict)]
