"""The image store: an OCI image layout (image-spec "Image Layout") that other tools can read.

    DATA/images/oci-layout
    DATA/images/index.json            what has a name; rewritten whole, under the store's lock
    DATA/images/blobs/sha256/<hex>    manifests, configs and layers, verified before they appear
    DATA/images/blobs/sha512/<hex>    those of images that others have made so
    DATA/images/partial/<hex>         a blob on its way; what a killed process had is kept

A blob that is there is whole. A name is written last, after every blob it leads to.
Who removes blobs holds the lock exclusively; who brings some in holds `held()` shared
from the first blob to the name, so that no blob goes before its name comes.
"""

from __future__ import annotations

import os

from wherry import paths
from wherry.errors import CorruptState, NotFound, UsageError, WherryError
from wherry.files import (
    Lock,
    make_dir,
    read_file,
    read_json,
    write_atomic,
)
from wherry.image import digests
from wherry.image.config import is_config
from wherry.image.digests import digest_of
from wherry.image.reference import parse_reference
from wherry.lean import dump_json, load_json
from wherry.shapes import TEXTS
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from wherry.image.ingest import Ingest
    from wherry.oci.image_spec import Descriptor

NAME = "org.opencontainers.image.ref.name"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
"""What the file oci-layout says."""
CONTAINERD_NAME = "io.containerd.image.name"

INDEXES = frozenset(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)

_HEX = frozenset("0123456789abcdef")
_INDEX = {
    "manifests": [
        {
            "digest!": str,
            "mediaType": str,
            "size": int,
            "annotations": TEXTS,
            "platform": {"architecture": str, "os": str, "variant": str},
        }
    ]
}
# How deep indexes lie in each other.
_MAX_NESTING = 4


@value
class Image:
    """An image for one platform."""

    # The digest of the config, which is what docker calls an image's id.
    id: str
    # What the name points to: a manifest, or the index that holds it.
    descriptor: Descriptor
    manifest: dict[str, Any]
    config: dict[str, Any]
    references: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    # The digests of what else leads to it.
    others: tuple[str, ...] = ()

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The digests of the unpacked layers, the lowest first."""
        return tuple(self.config["rootfs"]["diff_ids"])


class ImageStore:
    """The images of this user."""

    def __init__(self, root: str | None = None) -> None:
        self.root = root or paths.images()

    # ---- blobs ----

    def blob_path(self, digest: str) -> str:
        """Where the blob of `digest` is or would be. Raises UsageError for no digest."""
        algorithm, encoded = digests.split(digest)
        return f"{self.root}/blobs/{algorithm}/{encoded}"

    def partial_path(self, digest: str) -> str:
        """Where the blob of `digest` is while it is on its way."""
        return f"{self.root}/partial/{digest.partition(':')[2]}"

    def has_blob(self, digest: str) -> bool:
        return os.path.exists(self.blob_path(digest))

    def read_blob(self, digest: str) -> bytes:
        """A small blob, verified. Raises NotFound or CorruptState."""
        try:
            content = read_file(self.blob_path(digest))
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is not in the image store") from None
        except CorruptState:
            content = b""
        if digest_of(content, digest.partition(":")[0]) != digest:
            raise CorruptState(
                f"blob {digest} is damaged",
                hint="`wherry system check --repair` drops it, so that it can be fetched again",
            )
        return content

    def put_blob(self, content: bytes, algorithm: str = "sha256") -> str:
        """Keep `content`; its digest."""
        digest = digest_of(content, algorithm)
        self._make()
        if not self.has_blob(digest):
            write_atomic(self.place(digest), content, mode=0o644, sync=True)
        return digest

    def place(self, digest: str) -> str:
        """Where the blob of `digest` is to be put."""
        path = self.blob_path(digest)
        make_dir(os.path.dirname(path), 0o755)
        return path

    def adopt(self, path: str, digest: str) -> None:
        """Make the file at `path` (on the store's file system) the blob of `digest`.

        The caller has verified it.
        """
        self._make()
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.chmod(path, 0o644)
        os.replace(path, self.place(digest))

    def ingest(self, digest: str, size: int | None) -> Ingest:
        """Bring in a large blob piece by piece; one process at a time does so."""
        from wherry.image.ingest import Ingest

        self._make()
        return Ingest(self, digest, size)

    def _make(self) -> None:
        """Make the layout, if this is the first image."""
        if os.path.exists(f"{self.root}/oci-layout"):
            return
        make_dir(f"{self.root}/blobs/sha256", 0o755)
        make_dir(f"{self.root}/partial")
        if not os.path.exists(f"{self.root}/index.json"):
            with self.locked():
                if not os.path.exists(f"{self.root}/index.json"):
                    self._write_index([])
        write_atomic(f"{self.root}/oci-layout", LAYOUT, mode=0o644, sync=True)

    # ---- names ----

    def locked(self) -> Lock:
        """Nobody else changes names or removes blobs while this is held."""
        return Lock(f"{make_dir(self.root)}/lock")

    def held(self) -> Lock:
        """Nobody removes blobs while this is held; many may hold it at once."""
        return Lock(f"{make_dir(self.root)}/held", shared=True)

    def alone(self) -> Lock:
        """Nobody holds the store while this is held. Raises Conflict where somebody does."""
        return Lock(f"{make_dir(self.root)}/held", wait=False)

    def entries(self) -> list[Descriptor]:
        """The descriptors of index.json."""
        try:
            index = read_json(f"{self.root}/index.json", _INDEX)
        except FileNotFoundError:
            return []
        except CorruptState as error:
            error.hint = "`wherry system check --repair` makes it anew, without names"
            raise
        manifests: list[Descriptor] = index.get("manifests") or []
        return manifests

    def _write_index(self, manifests: list[Descriptor]) -> None:
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        }
        write_atomic(f"{self.root}/index.json", dump_json(index).encode(), mode=0o644, sync=True)

    def tag(self, reference: str, descriptor: Descriptor) -> None:
        """Make `reference` (full) the name of what `descriptor` describes.

        What had the name stays, without one.
        """
        self._make()
        named = _bare(descriptor)
        named["annotations"] = {NAME: reference, CONTAINERD_NAME: reference}
        with self.locked():
            entries = self.entries()
            kept = [
                entry
                for entry in entries
                if name_of(entry) != reference
                and (name_of(entry) or entry["digest"] != descriptor["digest"])
            ]
            known = {descriptor["digest"], *(entry["digest"] for entry in kept)}
            kept += [
                _bare(entry)
                for entry in entries
                if name_of(entry) == reference and entry["digest"] not in known
            ]
            self._write_index([*kept, named])

    def keep(self, descriptor: Descriptor) -> None:
        """Count what `descriptor` describes among the images, with a name or without."""
        self._make()
        with self.locked():
            entries = self.entries()
            if all(entry["digest"] != descriptor["digest"] for entry in entries):
                self._write_index([*entries, _bare(descriptor)])

    def untag(self, reference: str, *, forget: bool = False) -> None:
        """Take a name away. The image stays without one, unless `forget` or it has another."""
        with self.locked():
            entries = self.entries()
            gone = [entry for entry in entries if name_of(entry) == reference]
            kept = [entry for entry in entries if name_of(entry) != reference]
            if gone and not forget and all(e["digest"] != gone[0]["digest"] for e in kept):
                kept.append(_bare(gone[0]))
            self._write_index(kept)

    def drop(self, *digests: str) -> None:
        """Take every name, and the place among the images, from what has these digests."""
        with self.locked():
            self._write_index([each for each in self.entries() if each["digest"] not in digests])

    def replace(self, digest: str, descriptor: Descriptor) -> None:
        """Let all names of what has this digest be names of what `descriptor` describes."""
        with self.locked():
            entries = self.entries()
            for entry in entries:
                if entry["digest"] == digest:
                    entry.update(descriptor)
            self._write_index(entries)

    # ---- images ----

    def find(self, name: str, platform: str | None = None) -> Image:
        """By short or full reference, digest, id or unique id prefix. Raises NotFound.

        The digest of an index is the id that a build for several platforms tells.
        """
        entries = self.entries()
        try:
            wanted = parse_reference(name)
        except UsageError:
            wanted = None
        if wanted is not None:
            for entry in entries:
                if _is_meant(entry, wanted):
                    return self._load(entry, entries, platform)
        algorithm, _, prefix = name.rpartition(":")
        if prefix and _HEX.issuperset(prefix) and algorithm in ("", *digests.LENGTHS):
            found = {
                image.id: image
                for image in self._each(entries, platform)
                if image.id.startswith(f"{algorithm or image.id.partition(':')[0]}:{prefix}")
                or image.descriptor["digest"] == name
            }
            if len(found) == 1:
                return next(iter(found.values()))
            if found:
                raise UsageError(f"Multiple IDs found with provided prefix: {name}")
        raise NotFound(f"No such image: {name}")

    def images(self) -> list[Image]:
        """Every image that is whole, each once, with all that it is called."""
        found: dict[str, Image] = {}
        for image in self._each(self.entries(), None):
            known = found.get(image.id)
            found[image.id] = _joined(known, image) if known else image
        return list(found.values())

    def whole(self, image: Image) -> Image:
        """`image` with all that it is called, be it by other manifests and indexes."""
        for each in self._each(self.entries(), None):
            if each.id == image.id:
                image = _joined(image, each)
        return image

    def image_of(self, entry: Descriptor, platform: str = "") -> Image:
        """The image of an entry of index.json. Raises WherryError where it cannot be read."""
        return self._load(entry, self.entries(), platform or None)

    def manifest_of(self, entry: Descriptor, platform: str = "") -> dict[str, Any]:
        """The manifest that an entry is, or leads to for `platform`."""
        return self._manifest(entry["digest"], platform or None)

    def _each(self, entries: list[Descriptor], platform: str | None) -> Iterator[Image]:
        for entry in entries:
            try:
                yield self._load(entry, entries, platform)
            except WherryError:
                continue

    def _load(self, entry: Descriptor, entries: list[Descriptor], platform: str | None) -> Image:
        manifest = self._manifest(entry["digest"], platform)
        config_digest = manifest["config"]["digest"]
        config = self._document(config_digest)
        if not is_config(config):
            raise CorruptState(f"{config_digest} is not the config of an image")
        if len(manifest["layers"]) != len(config["rootfs"]["diff_ids"]):
            raise CorruptState(f"image {config_digest} has another number of layers than it says")
        if platform:
            _check_platform(name_of(entry) or entry["digest"], config, platform)
        names = [name for e in entries if e["digest"] == entry["digest"] and (name := name_of(e))]
        repositories = dict.fromkeys(filter(None, map(_repository, names)))
        return Image(
            id=config_digest,
            descriptor=_bare(entry),
            manifest=manifest,
            config=config,
            references=tuple(names),
            repo_digests=tuple(f"{each}@{entry['digest']}" for each in repositories),
        )

    def _manifest(self, digest: str, platform: str | None, depth: int = 0) -> dict[str, Any]:
        """The manifest that `digest` is or leads to: for `platform`, or the best that is here."""
        document = self._document(digest)
        if "manifests" not in document:
            if not _are_descriptors([document.get("config")], document.get("layers")):
                raise CorruptState(f"{digest} is not the manifest of an image")
            return document
        if not _are_descriptors(document["manifests"]):
            raise CorruptState(f"{digest} is not an index of images")
        from wherry.image.platform import choose_manifest, host_platform, parse_platform

        entries = [each for each in document["manifests"] if self.has_blob(each["digest"])]
        if not entries or depth > _MAX_NESTING:
            raise NotFound(f"nothing of the index {digest} is in the image store")
        wanted = parse_platform(platform) if platform else host_platform()
        try:
            chosen = choose_manifest(entries, wanted)
        except NotFound:
            images = [each for each in entries if not _is_attestation(each)]
            if platform or not images:
                raise
            # What was pulled for another platform is an image too.
            chosen = images[0]
        return self._manifest(chosen["digest"], platform, depth + 1)

    def _document(self, digest: str) -> dict[str, Any]:
        try:
            document = load_json(self.read_blob(digest))
        except ValueError as error:
            raise CorruptState(f"blob {digest} is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise CorruptState(f"blob {digest} is no document of an image")
        return document


def name_of(entry: Descriptor) -> str:
    """The name that index.json gives to an entry; "" for none."""
    return (entry.get("annotations") or {}).get(NAME, "")


def _joined(image: Image, other: Image) -> Image:
    """Two that are the same: a manifest and an index that leads to it, or two manifests."""
    return Image(
        id=image.id,
        descriptor=image.descriptor,
        manifest=image.manifest,
        config=image.config,
        references=tuple(dict.fromkeys((*image.references, *other.references))),
        repo_digests=tuple(dict.fromkeys((*image.repo_digests, *other.repo_digests))),
        others=tuple(
            dict.fromkeys(
                each
                for each in (*image.others, other.descriptor["digest"])
                if each != image.descriptor["digest"]
            )
        ),
    )


def _bare(entry: Descriptor) -> Descriptor:
    """A descriptor without the names that index.json has given it."""
    bare = dict(entry)
    kept = {
        key: text
        for key, text in (entry.get("annotations") or {}).items()
        if key not in (NAME, CONTAINERD_NAME)
    }
    bare.pop("annotations", None)
    if kept:
        bare["annotations"] = kept
    return bare  # type: ignore[return-value]


def _is_meant(entry: Descriptor, wanted: Any) -> bool:
    name = name_of(entry)
    if name and wanted.digest:
        is_same = entry["digest"] == wanted.digest
        return is_same and bool(_repository(name) == wanted.familiar_name)
    return bool(name == wanted.canonical())


def _repository(name: str) -> str:
    """The repository of a name; "" for one that another tool has given, and that is none."""
    try:
        return str(parse_reference(name).familiar_name)
    except UsageError:
        return ""


def _are_descriptors(*lists: Any) -> bool:
    """Whether these are lists of descriptors: documents are written by others."""
    return all(
        isinstance(each, list)
        and all(isinstance(one, dict) and isinstance(one.get("digest"), str) for one in each)
        for each in lists
    )


def _is_attestation(entry: dict[str, Any]) -> bool:
    return (entry.get("platform") or {}).get("architecture") == "unknown"


def _check_platform(name: str, config: dict[str, Any], platform: str) -> None:
    from wherry.image.platform import acceptable, parse_platform, platform_of

    wanted, actual = parse_platform(platform), platform_of(config)
    if actual not in acceptable(wanted):
        raise NotFound(
            f"image with reference {name} was found but does not match the specified platform: "
            f"wanted {wanted}, actual: {actual}"
        )
