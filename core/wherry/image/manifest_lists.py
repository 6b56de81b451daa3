"""Manifest lists that a user puts together of images in a registry (`manifest create`).

A list is kept beside docker's `config.json` until it is pushed:

    CONFIG/manifests/NAME.json   [{"reference": an image's full name, "descriptor": …}, …]
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING
from urllib.parse import quote  # noqa: TID253

from wherry import paths
from wherry.errors import Conflict, CorruptState, NotFound, RegistryError, Unsupported
from wherry.files import make_dir, read_json, remove_file, write_json
from wherry.image.connect import connect
from wherry.image.platform import platform_of
from wherry.image.progress import Progress
from wherry.image.pull import check_descriptor, entries_of
from wherry.image.reference import parse_reference
from wherry.image.registry import DOCKER_INDEX, DOCKER_MANIFEST, INDEXES, OCI_INDEX
from wherry.image.upload import mount_blob
from wherry.values import value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.container.request import PullOptions
    from wherry.image.reference import Reference
    from wherry.image.registry import Manifest, Registry

_MAX_CONFIG = 8 << 20


@value
class Found:
    """A manifest or an index of a registry, with what describes it."""

    reference: Reference
    manifest: Manifest
    # With the platform, where it is an image's.
    descriptor: dict[str, Any]


def look_up(name: str, options: PullOptions) -> Found:
    """What a registry has under a name. Raises NotFound in docker's words."""
    reference = parse_reference(name)
    registry = connect(reference, Progress(), options)
    try:
        return _describe(registry, reference)
    except NotFound:
        raise NotFound(f"no such manifest: {reference.canonical()}") from None


def look_up_all(found: Found, options: PullOptions) -> list[Found]:
    """The images of an index."""
    registry = connect(found.reference, Progress(), options)
    return [
        Found(
            reference=found.reference,
            manifest=registry.manifest(found.reference.with_digest(entry["digest"])),
            descriptor=dict(entry),
        )
        for entry in entries_of(found.manifest)
    ]


def _describe(registry: Registry, reference: Reference) -> Found:
    manifest = registry.manifest(reference)
    descriptor: dict[str, Any] = {**manifest.descriptor}
    if manifest.media_type not in INDEXES:
        descriptor["platform"] = _platform(registry, reference, manifest)
    return Found(reference=reference, manifest=manifest, descriptor=descriptor)


def _platform(registry: Registry, reference: Reference, manifest: Manifest) -> dict[str, str]:
    """The platform of an image, which its config tells; none of what is no image."""
    config = manifest.document().get("config")
    check_descriptor(config, reference.familiar())
    assert isinstance(config, dict)
    if "image" not in str(config.get("mediaType")) or config["size"] > _MAX_CONFIG:
        return {}
    try:
        content = json.loads(registry.read_blob(reference, config["digest"], config["size"]))
    except ValueError as error:
        raise CorruptState(f"config {config['digest']} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CorruptState(f"config {config['digest']} is not a JSON object")
    actual = platform_of(content)
    platform = {"architecture": actual.architecture, "os": actual.os}
    if content.get("variant"):
        platform["variant"] = content["variant"]
    return platform


class ManifestList:
    """A list that is being put together."""

    def __init__(self, name: str) -> None:
        self.reference = parse_reference(name)
        file = quote(self.reference.canonical(), safe="") + ".json"
        self._path = os.path.join(paths.manifest_lists(), file)

    def exists(self) -> bool:
        return os.path.exists(self._path)

    def create(self, names: Sequence[str], options: PullOptions, *, amend: bool) -> None:
        """Add images; the list must be there with `amend` only."""
        if self.exists() and not amend:
            raise Conflict("refusing to amend an existing manifest list with no --amend flag")
        entries = self.entries() if self.exists() else []
        for name in names:
            found = look_up(name, options)
            if found.manifest.media_type in INDEXES:
                raise Unsupported(f"{name} is a manifest list")
            canonical = found.reference.canonical()
            entries = [entry for entry in entries if entry["reference"] != canonical]
            entries.append({"reference": canonical, "descriptor": found.descriptor})
        self._write(entries)

    def annotate(self, name: str, platform: Mapping[str, Any]) -> None:
        """Say otherwise of an image in the list what platform it is for."""
        entries = self.entries()
        entry = self._entry(entries, name)
        entry["descriptor"]["platform"] = {**entry["descriptor"].get("platform", {}), **platform}
        self._write(entries)

    def entry(self, name: str) -> dict[str, Any]:
        return self._entry(self.entries(), name)

    def _entry(self, entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
        wanted = parse_reference(name).canonical()
        for entry in entries:
            if entry["reference"] == wanted:
                return entry
        raise NotFound(
            f"manifest for image {wanted} does not exist in {self.reference.canonical()}"
        )

    def entries(self) -> list[dict[str, Any]]:
        try:
            entries = read_json(self._path)
        except FileNotFoundError:
            raise NotFound(f"No such manifest: {self.reference.canonical()}") from None
        if not isinstance(entries, list):
            raise CorruptState(f"{self._path} is damaged: it is no list")
        return entries

    def _write(self, entries: list[dict[str, Any]]) -> None:
        make_dir(os.path.dirname(self._path))
        write_json(self._path, entries)

    def document(self) -> dict[str, Any]:
        """The index that the list is."""
        descriptors = [entry["descriptor"] for entry in self.entries()]
        are_dockers = all(each["mediaType"] == DOCKER_MANIFEST for each in descriptors)
        return {
            "schemaVersion": 2,
            "mediaType": DOCKER_INDEX if are_dockers else OCI_INDEX,
            "manifests": descriptors,
        }

    def push(self, options: PullOptions) -> str:
        """Put the list, and what the repository has not of it, into the registry; its digest."""
        registry = connect(self.reference, Progress(), options)
        for entry in self.entries():
            source = parse_reference(entry["reference"])
            if source.domain != self.reference.domain:
                raise Unsupported(
                    "cannot use source images from a different registry than the target image: "
                    f"{source.domain} != {self.reference.domain}"
                )
            self._take_over(registry, source.with_digest(entry["descriptor"]["digest"]))
        document = self.document()
        content = json.dumps(document, indent=3).encode()
        return registry.put_manifest(self.reference, content, document["mediaType"])

    def _take_over(self, registry: Registry, source: Reference) -> None:
        """Have an image of another repository in the list's own."""
        if source.path == self.reference.path:
            return
        manifest = registry.manifest(source)
        document = manifest.document()
        for blob in (document.get("config"), *(document.get("layers") or ())):
            check_descriptor(blob, source.familiar())
            if not mount_blob(registry, self.reference, blob["digest"], source.path):
                raise RegistryError(
                    f"{registry.host} does not take {blob['digest']} over from {source.path}",
                    hint=f"push the image to {self.reference.familiar_name} first",
                )
        target = self.reference.with_digest(manifest.digest)
        registry.put_manifest(target, manifest.content, manifest.media_type)

    def remove(self) -> None:
        """Forget the list. Raises NotFound."""
        self.entries()
        remove_file(self._path)
