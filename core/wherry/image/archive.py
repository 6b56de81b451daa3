"""`docker load`: images out of one file, as `docker save` and `skopeo copy oci-archive:` write.

    oci-layout, index.json, blobs/sha256/…        an OCI image layout, in a tar
    manifest.json, and the files that it names    docker's own format

An archive may be compressed, and may come through a pipe, so that every file is put
aside until the end has told what it is for. Blobs go into the store once the layers of
all images have been unpacked, and so verified: a bad archive leaves nothing there.
"""

from __future__ import annotations

import os

from wherry.errors import CorruptState, NotFound, WherryError
from wherry.image.archive_files import (
    ArchiveFiles,
    FileLayer,
    algorithm_of_blob,
    read_document,
)
from wherry.image.assembly import CONFIG, GZIP_LAYER, LAYER, ZSTD_LAYER, give_name, manifest_of
from wherry.image.decompress import GZIP, ZSTD, Decompressor, decompressed
from wherry.image.layers import layer_path
from wherry.image.reference import parse_reference
from wherry.image.store import CONTAINERD_NAME, NAME
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wherry.image.layers import Layer
    from wherry.image.platform import Platform
    from wherry.image.store import ImageStore
    from wherry.oci.image_spec import Descriptor

_DEEPEST_INDEX = 4
_PIECE = 1 << 20


@value
class Loaded:
    """An image that an archive held."""

    # Its names in full; none where the archive has none for it.
    references: tuple[str, ...]
    descriptor: Descriptor
    layers: Sequence[Layer]
    # The config's digest.
    id: str


def load(
    store: ImageStore,
    read: Callable[[int], bytes],
    *,
    platform: str | None = None,
    unpack: Callable[[Sequence[Layer]], None],
) -> list[Loaded]:
    """Bring the images of an archive into the store, unpacked and named.

    Raises CorruptState for what is no archive of images, NotFound where it has none for
    `platform`; nothing of it is kept then.
    """
    with store.held(), ArchiveFiles(store) as files:
        files.take(decompressing(read))
        blobs = _Blobs(store, files)
        if "index.json" in files and "oci-layout" in files:
            found = _Layout(files, blobs, platform).images()
        elif "manifest.json" in files:
            found = [_docker_image(files, blobs, entry) for entry in _docker_entries(files)]
        else:
            found = []
        if not found:
            raise CorruptState("the archive holds no image", hint=_hint(files))
        for image in found:
            for layer in image.layers:
                _check_known(layer)
            unpack(image.layers)
        blobs.adopt()
        for image in found:
            for reference in image.references or ("",):
                give_name(store, reference, image.descriptor)
        return found


def decompressing(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """The decompressed bytes of `read`, in its own manner."""
    pieces = decompressed(read)
    return lambda size: next(pieces, b"")  # noqa: ARG005 - the reader takes what it gets


def _hint(files: ArchiveFiles) -> str:
    if "repositories" in files:
        return "it was written by a docker before 1.10: load and save it with a later one first"
    return "`wherry import` makes an image of the files of a plain tar"


class _Blobs:
    """The blobs of an archive by digest, and those of the store where it has not got them."""

    def __init__(self, store: ImageStore, files: ArchiveFiles) -> None:
        self._store = store
        self._files = files
        self._paths: dict[str, str] = {}
        self._made = 0
        # What leads somewhere, and so is to be kept.
        self._wanted: list[str] = []

    def add(self, name: str) -> str:
        """Take a file of the archive for a blob; its digest."""
        digest = self._files.digest(name)
        self._paths[digest] = self._files.file(name)
        return digest

    def make(self, content: bytes) -> str:
        """A blob that the archive has not got as a file; its digest."""
        name = f"made/{self._made}"
        self._made += 1
        self._files.write(name, [content])
        return self.want(self.add(name))

    def __contains__(self, digest: str) -> bool:
        return digest in self._paths or self._store.has_blob(digest)

    def want(self, digest: str) -> str:
        """Keep a blob. Raises CorruptState where it is not there."""
        self.path(digest)
        self._wanted.append(digest)
        return digest

    def path(self, digest: str) -> str:
        """Where a blob lies. Raises CorruptState where it is not there."""
        if digest in self._paths:
            return self._paths[digest]
        if not self._store.has_blob(digest):
            raise CorruptState(f"the archive has no blob {digest}, which it tells of")
        return self._store.blob_path(digest)

    def size(self, digest: str) -> int:
        return os.stat(self.path(digest)).st_size

    def document(self, digest: str) -> dict[str, Any]:
        document = read_document(self.path(digest), f"blob {digest}")
        if not isinstance(document, dict):
            raise CorruptState(f"blob {digest} is no document of an image")
        return document

    def adopt(self) -> None:
        """Put what is wanted into the store: what leads to others comes after them."""
        for digest in reversed(dict.fromkeys(self._wanted)):
            if not self._store.has_blob(digest):
                self._store.adopt(self._paths[digest], digest)


def _check_known(layer: Layer) -> None:
    """Verify a layer that need not be unpacked, since one of its diff id is there already."""
    if layer.descriptor["digest"] == layer.diff_id or not os.path.isdir(layer_path(layer.diff_id)):
        return
    with Decompressor(layer.open()) as content:
        while content.read(_PIECE):
            pass
        found = content.digest()
    if found != layer.diff_id:
        raise CorruptState(
            f"layer {layer.descriptor['digest']} unpacks to {found},"
            f" but its image says {layer.diff_id}"
        )


# ---- an OCI image layout ----


class _Layout:
    """The images that an archive's index.json tells of."""

    def __init__(self, files: ArchiveFiles, blobs: _Blobs, platform: str | None) -> None:
        self._files = files
        self._blobs = blobs
        self._platform = platform
        for name in files.names():
            if algorithm_of_blob(name):
                digest = blobs.add(name)
                if digest != name.removeprefix("blobs/").replace("/", ":"):
                    raise CorruptState(f"digest mismatch: the archive's {name} has digest {digest}")

    def images(self) -> list[Loaded]:
        entries = _descriptors(self._files.document("index.json"), "manifests", "index.json")
        names: dict[str, list[str]] = {}
        first: dict[str, dict[str, Any]] = {}
        for entry in entries:
            first.setdefault(entry["digest"], entry)
            named = names.setdefault(entry["digest"], [])
            if reference := _name_of(entry):
                named.append(reference)
        return [self._image(entry, names[digest]) for digest, entry in first.items()]

    def _image(self, entry: dict[str, Any], references: list[str]) -> Loaded:
        manifest = self._manifest(entry)
        image_id = manifest["config"]["digest"]
        return Loaded(
            references=tuple(references or self._names_by_docker(image_id)),
            descriptor={
                "mediaType": str(entry.get("mediaType") or manifest.get("mediaType")),
                "digest": entry["digest"],
                "size": self._blobs.size(entry["digest"]),
            },
            layers=_layers(self._blobs, manifest),
            id=image_id,
        )

    def _names_by_docker(self, image_id: str) -> list[str]:
        """The names that manifest.json has for an image to which index.json gives none."""
        if "manifest.json" not in self._files:
            return []
        return [
            reference
            for entry in _docker_entries(self._files)
            if entry.config in self._files and self._files.digest(entry.config) == image_id
            for reference in entry.references
        ]

    def _manifest(self, entry: dict[str, Any], depth: int = 0) -> dict[str, Any]:
        """The manifest of the wanted platform; what else an index leads to is kept with it."""
        digest = self._want(entry)
        document = self._blobs.document(digest)
        if "manifests" not in document:
            for each in _parts(document, digest):
                self._want(each)
            return document
        if depth > _DEEPEST_INDEX:
            raise CorruptState(f"the archive's index {digest} leads to indexes without end")
        found = [
            (each, self._manifest(each, depth + 1))
            for each in _descriptors(document, "manifests", digest)
            if self._is_whole(each["digest"])
        ]
        return self._choose(found, digest)

    def _is_whole(self, digest: str) -> bool:
        """Whether what an index leads to is there: not every platform need be."""
        if digest not in self._blobs:
            return False
        document = self._blobs.document(digest)
        if "manifests" in document:
            return True
        return all(each["digest"] in self._blobs for each in _parts(document, digest))

    def _choose(
        self, found: list[tuple[dict[str, Any], dict[str, Any]]], digest: str
    ) -> dict[str, Any]:
        from wherry.image.platform import choose_manifest, host_platform, parse_platform

        images = [each for each, _ in found if not _is_attestation(each)]
        if not images:
            raise CorruptState(f"the archive has no image of its index {digest}")
        manifests = {each["digest"]: manifest for each, manifest in found}
        wanted: Platform = parse_platform(self._platform) if self._platform else host_platform()
        try:
            return manifests[choose_manifest(images, wanted)["digest"]]
        except NotFound:
            if self._platform:
                raise
            # Made for elsewhere, it can still be kept, tagged and pushed.
            return manifests[images[0]["digest"]]

    def _want(self, descriptor: dict[str, Any]) -> str:
        digest = self._blobs.want(descriptor["digest"])
        size = self._blobs.size(digest)
        if descriptor.get("size") != size:
            raise CorruptState(
                f"blob {digest} has {size} bytes, but the archive says {descriptor.get('size')}"
            )
        return digest


def _is_attestation(entry: dict[str, Any]) -> bool:
    platform = entry.get("platform")
    return isinstance(platform, dict) and platform.get("architecture") == "unknown"


def _name_of(entry: dict[str, Any]) -> str:
    """The full name in a descriptor's annotations; "" for a bare tag, which names nothing."""
    annotations = entry.get("annotations")
    if not isinstance(annotations, dict):
        return ""
    for key in (CONTAINERD_NAME, NAME):
        text = str(annotations.get(key) or "")
        if "/" in text or (key == NAME and ":" in text):
            try:
                return parse_reference(text).canonical()
            except WherryError:
                continue
    return ""


def _descriptors(document: Any, key: str, where: str) -> list[dict[str, Any]]:
    found = document.get(key) if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(map(_is_descriptor, found)):
        raise CorruptState(f"{where} of the archive has no proper {key}")
    return found


def _is_descriptor(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("digest"), str)


def _parts(manifest: dict[str, Any], digest: str) -> list[dict[str, Any]]:
    """A manifest's config and layers."""
    config = manifest.get("config")
    if not isinstance(config, dict) or not _is_descriptor(config):
        raise CorruptState(f"{digest} of the archive is no manifest of an image")
    return [config, *_descriptors(manifest, "layers", digest)]


def _layers(blobs: _Blobs, manifest: dict[str, Any]) -> list[FileLayer]:
    """The layers of an image, whose config must tell of as many."""
    config = blobs.document(manifest["config"]["digest"])
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(isinstance(each, str) for each in diff_ids):
        raise CorruptState(f"{manifest['config']['digest']} of the archive is no image's config")
    if len(diff_ids) != len(manifest["layers"]):
        raise CorruptState("an image of the archive has another number of layers than it says")
    return [
        FileLayer(descriptor, diff_id, blobs.path(descriptor["digest"]))
        for descriptor, diff_id in zip(manifest["layers"], diff_ids, strict=True)
    ]


# ---- docker's format ----


@value
class _DockerEntry:
    """One image of manifest.json: the names of its files."""

    config: str
    layers: list[str]
    references: list[str]


def _docker_entries(files: ArchiveFiles) -> list[_DockerEntry]:
    entries = files.document("manifest.json")
    if not isinstance(entries, list):
        raise CorruptState("the archive's manifest.json is no list")
    return [_docker_entry(entry) for entry in entries]


def _docker_entry(entry: Any) -> _DockerEntry:
    if isinstance(entry, dict):
        config, layers, tags = entry.get("Config"), entry.get("Layers"), entry.get("RepoTags") or []
        if (
            isinstance(config, str)
            and isinstance(layers, list)
            and isinstance(tags, list)
            and all(isinstance(each, str) for each in (*layers, *tags))
        ):
            return _DockerEntry(
                config=config,
                layers=layers,
                references=[parse_reference(tag).canonical() for tag in tags],
            )
    raise CorruptState("an entry of the archive's manifest.json is damaged")


def _docker_image(files: ArchiveFiles, blobs: _Blobs, entry: _DockerEntry) -> Loaded:
    layers: list[Descriptor] = []
    for name in entry.layers:
        digest = blobs.add(name)
        layers.append(
            {
                "mediaType": _layer_type(files.file(name)),
                "digest": digest,
                "size": blobs.size(digest),
            }
        )
    image_id = blobs.add(entry.config)
    config: Descriptor = {
        "mediaType": CONFIG, "digest": image_id, "size": blobs.size(image_id)
    }  # fmt: skip
    content, descriptor = manifest_of(config, layers)
    stored = _layers(blobs, {"config": config, "layers": layers})
    blobs.make(content)
    for part in (config, *layers):
        blobs.want(part["digest"])
    return Loaded(
        references=tuple(entry.references), descriptor=descriptor, layers=stored, id=image_id
    )


def _layer_type(path: str) -> str:
    with open(path, "rb") as file:
        head = file.read(8)
    return GZIP_LAYER if head.startswith(GZIP) else ZSTD_LAYER if head.startswith(ZSTD) else LAYER
