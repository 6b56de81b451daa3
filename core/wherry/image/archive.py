"""Images as one file: what `docker save` and `skopeo copy oci-archive:` write, in and out.

    oci-layout, index.json, blobs/sha256/…        an OCI image layout, in a tar
    manifest.json, and the files that it names    docker's own format

What is written is both at once, as docker does it. What is read may be compressed, and
may come through a pipe, so that every file is put aside until the end has told what it
is for. A name in an archive is only ever a name: no path is made of it.
"""

from __future__ import annotations

import os
import posixpath

from wherry.container.copy import remove_tree
from wherry.errors import CorruptState, NotFound, WherryError
from wherry.files import make_dir, storage_error
from wherry.image.decompress import GZIP, ZSTD, decompressed
from wherry.image.layers import StoredLayer
from wherry.image.reference import parse_reference
from wherry.image.store import CONTAINERD_NAME, INDEXES, NAME
from wherry.image.tar import FILE, HARD_LINK, SYMLINK, Member, TarReader, TarWriter
from wherry.lean import dump_json, load_json, sha256
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Any

    from wherry.image.layers import Layer
    from wherry.image.store import Image, ImageStore
    from wherry.oci.image_spec import Descriptor

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

_BLOBS = "blobs/sha256/"
_LARGEST_DOCUMENT = 16 << 20


# ---- reading ----


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

    Raises CorruptState for what is no archive of images; nothing is named then.
    """
    with store.held(), _Files(store) as files:
        files.take(_reader(read))
        found = _from_layout(store, files, platform) or _from_docker(store, files)
        if not found:
            raise CorruptState(
                "the archive holds no image",
                hint="`wherry import` makes an image of the files of a plain tar",
            )
        for image in found:
            unpack(image.layers)
        for image in found:
            for reference in image.references:
                store.tag(reference, image.descriptor)
            if not image.references:
                store.keep(image.descriptor)
        return found


def _reader(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """The decompressed bytes of `read`, in its own manner."""
    pieces = decompressed(read)
    return lambda size: next(pieces, b"")  # noqa: ARG005 - the reader takes what it gets


class _Files:
    """The files of an archive, put aside below the store; gone at the end."""

    def __init__(self, store: ImageStore) -> None:
        self._directory = make_dir(f"{store.root}/partial/load.{os.getpid()}")
        self._paths: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._links: dict[str, str] = {}

    def __enter__(self) -> _Files:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        remove_tree(self._directory)

    def take(self, read: Callable[[int], bytes]) -> None:
        """Put aside every file of a tar stream."""
        archive = TarReader(read)
        for member in archive:
            name = posixpath.normpath(member.name.lstrip("/"))
            if member.type == FILE:
                self._write(name, archive.pieces())
            elif member.type == SYMLINK:
                target = posixpath.join(posixpath.dirname(name), member.linkname)
                self._links[name] = posixpath.normpath(target)
            elif member.type == HARD_LINK:
                self._links[name] = posixpath.normpath(member.linkname.lstrip("/"))

    def take_layer(self, pieces: Iterable[bytes], store: ImageStore) -> tuple[str, int]:
        """Make a blob of everything in `pieces`; its digest and size."""
        self._write("layer", pieces)
        size = self.size("layer")
        return self.keep("layer", store), size

    def _write(self, name: str, pieces: Iterable[bytes]) -> None:
        path = f"{self._directory}/{len(self._paths)}"
        digest = sha256()
        try:
            with open(path, "wb", buffering=0) as file:
                for piece in pieces:
                    digest.update(piece)
                    view = memoryview(piece)
                    while view:
                        view = view[file.write(view) :]
        except OSError as error:
            raise storage_error(error, "store the archive's files") from error
        self._paths[name] = path
        self._digests[name] = f"sha256:{digest.hexdigest()}"

    def _resolve(self, name: str) -> str:
        for _ in range(8):
            if name not in self._links:
                return name
            name = self._links[name]
        raise CorruptState(f"the archive's link {name} leads nowhere")

    def __contains__(self, name: str) -> bool:
        return self._resolve(name) in self._paths

    def names(self) -> list[str]:
        return list(self._paths)

    def document(self, name: str) -> Any:
        """A JSON file. Raises CorruptState."""
        path = self._path(name)
        if os.stat(path).st_size > _LARGEST_DOCUMENT:
            raise CorruptState(f"the archive's {name} is too large for what it should be")
        with open(path, "rb") as file:
            try:
                return load_json(file.read())
            except ValueError as error:
                raise CorruptState(f"the archive's {name} is damaged: {error}") from error

    def head(self, name: str) -> bytes:
        """The first bytes of a file."""
        with open(self._path(name), "rb") as file:
            return file.read(8)

    def size(self, name: str) -> int:
        return os.stat(self._path(name)).st_size

    def digest(self, name: str) -> str:
        """The digest of a file's bytes."""
        self._path(name)
        return self._digests[self._resolve(name)]

    def keep(self, name: str, store: ImageStore) -> str:
        """Make a file a blob of the store; its digest."""
        digest = self.digest(name)
        if not store.has_blob(digest):
            store.adopt(self._path(name), digest)
            self._paths[self._resolve(name)] = store.blob_path(digest)
        return digest

    def _path(self, name: str) -> str:
        found = self._paths.get(self._resolve(name))
        if found is None:
            raise CorruptState(f"the archive has no {name}, which it tells of")
        return found


def import_tree(
    store: ImageStore,
    read: Callable[[int], bytes],
    *,
    config: dict[str, Any],
    unpack: Callable[[Sequence[Layer]], None],
    reference: str = "",
) -> str:
    """Make an image whose one layer is a tar of files, compressed or not; its id.

    `config` is the image's config document, without its layers.
    """
    with store.held(), _Files(store) as files:
        diff_id, size = files.take_layer(decompressed(read), store)
        layer: Descriptor = {"mediaType": LAYER, "digest": diff_id, "size": size}
        unpack([StoredLayer(store, layer, diff_id)])
        document = {**config, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
        content = dump_json(document).encode()
        image_id = store.put_blob(content)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": image_id, "size": len(content)},
            "layers": [layer],
        }
        content = dump_json(manifest).encode()
        descriptor: Descriptor = {
            "mediaType": MANIFEST,
            "digest": store.put_blob(content),
            "size": len(content),
        }
        if reference:
            store.tag(reference, descriptor)
        else:
            store.keep(descriptor)
        return image_id


# ---- an OCI image layout ----


def _from_layout(store: ImageStore, files: _Files, platform: str | None) -> list[Loaded]:
    """The images that index.json tells of, where it does."""
    if "index.json" not in files or "oci-layout" not in files:
        return []
    for name in files.names():
        if name.startswith(_BLOBS):
            claimed = f"sha256:{name.removeprefix(_BLOBS)}"
            if files.digest(name) != claimed:
                raise CorruptState(
                    f"digest mismatch: blob {claimed} has digest {files.digest(name)}"
                )
            files.keep(name, store)
    names: dict[str, tuple[Descriptor, list[str]]] = {}
    for entry in _list(files.document("index.json"), "manifests", "index.json"):
        descriptor: Any = {key: entry[key] for key in ("mediaType", "digest", "size")}
        _, references = names.setdefault(entry["digest"], (descriptor, []))
        if reference := _name_of(entry):
            references.append(reference)
    found = []
    for descriptor, references in names.values():
        manifest = _whole_manifest(store, descriptor, platform)
        config = manifest["config"]["digest"]
        found.append(
            Loaded(
                references=tuple(references),
                descriptor=descriptor,
                layers=_stored_layers(store, manifest),
                id=config,
            )
        )
    return found


def _name_of(entry: dict[str, Any]) -> str:
    """The full name in a descriptor's annotations; "" for a bare tag, which names nothing."""
    annotations = entry.get("annotations") or {}
    for key in (CONTAINERD_NAME, NAME):
        text = str(annotations.get(key) or "")
        if "/" in text or (key == NAME and ":" in text):
            try:
                return parse_reference(text).canonical()
            except WherryError:
                continue
    return ""


def _whole_manifest(
    store: ImageStore, descriptor: Descriptor, platform: str | None
) -> dict[str, Any]:
    """The manifest of the wanted platform, all of whose blobs are there."""
    digest = descriptor["digest"]
    if not store.has_blob(digest):
        raise CorruptState(f"the archive has no blob {digest}, which it tells of")
    document = _document(store, digest)
    if descriptor.get("mediaType") in INDEXES or "manifests" in document:
        from wherry.image.platform import choose_manifest, host_platform, parse_platform

        present = [
            entry
            for entry in _list(document, "manifests", digest)
            if store.has_blob(entry["digest"])
        ]
        if not present:
            raise CorruptState(f"the archive has no manifest of its index {digest}")
        wanted = parse_platform(platform) if platform else host_platform()
        try:
            chosen = choose_manifest(present, wanted)
        except NotFound:
            if platform:
                raise
            chosen = present[0]
        return _whole_manifest(store, {**chosen}, platform)  # type: ignore[typeddict-item]
    for each in (document["config"], *_list(document, "layers", digest)):
        if not store.has_blob(each["digest"]):
            raise CorruptState(f"the archive has no blob {each['digest']}, which it tells of")
    return document


def _document(store: ImageStore, digest: str) -> dict[str, Any]:
    try:
        document = load_json(store.read_blob(digest))
    except ValueError as error:
        raise CorruptState(f"blob {digest} is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise CorruptState(f"blob {digest} is no manifest")
    return document


def _list(document: Any, key: str, where: str) -> list[dict[str, Any]]:
    found = document.get(key) if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(
        isinstance(each, dict) and isinstance(each.get("digest"), str) for each in found
    ):
        raise CorruptState(f"{where} of the archive has no proper {key}")
    return found


def _stored_layers(store: ImageStore, manifest: dict[str, Any]) -> list[StoredLayer]:
    config = _document(store, manifest["config"]["digest"])
    diff_ids = (config.get("rootfs") or {}).get("diff_ids") or []
    if len(diff_ids) != len(manifest["layers"]):
        raise CorruptState("an image of the archive has another number of layers than it says")
    return [
        StoredLayer(store, descriptor, diff_id)
        for descriptor, diff_id in zip(manifest["layers"], diff_ids, strict=True)
    ]


# ---- docker's format ----


def _from_docker(store: ImageStore, files: _Files) -> list[Loaded]:
    """The images that manifest.json tells of, where it does."""
    if "manifest.json" not in files:
        return []
    entries = files.document("manifest.json")
    if not isinstance(entries, list):
        raise CorruptState("the archive's manifest.json is no list")
    return [_docker_image(store, files, entry) for entry in entries]


def _docker_image(store: ImageStore, files: _Files, entry: Any) -> Loaded:
    try:
        config, names, tags = entry["Config"], entry["Layers"], entry.get("RepoTags") or ()
    except (KeyError, TypeError, AttributeError):
        raise CorruptState("an entry of the archive's manifest.json is damaged") from None
    layers: list[Descriptor] = []
    for name in names:
        head = files.head(name)
        suffix = "+gzip" if head.startswith(GZIP) else "+zstd" if head.startswith(ZSTD) else ""
        layers.append(
            {
                "mediaType": LAYER + suffix,
                "size": files.size(name),
                "digest": files.keep(name, store),
            }
        )
    size = files.size(config)
    config_digest = files.keep(config, store)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config_digest, "size": size},
        "layers": layers,
    }
    stored = _stored_layers(store, manifest)
    content = dump_json(manifest).encode()
    return Loaded(
        references=tuple(parse_reference(tag).canonical() for tag in tags),
        descriptor={
            "mediaType": MANIFEST,
            "digest": store.put_blob(content),
            "size": len(content),
        },
        layers=stored,
        id=config_digest,
    )


# ---- writing ----


def save(
    store: ImageStore,
    images: Sequence[tuple[Image, str]],
    write: Callable[[bytes], object],
    *,
    platform: str | None = None,
) -> None:
    """Write images, each with the name it is to have ("" for none), as one archive.

    The same images make the same bytes.
    """
    archive = TarWriter(write)
    blobs: dict[str, int] = {}
    index: list[dict[str, Any]] = []
    docker: dict[str, dict[str, Any]] = {}
    for image, reference in images:
        descriptor = _described(store, image, platform, blobs)
        annotations = {CONTAINERD_NAME: reference, NAME: reference} if reference else {}
        index.append({**descriptor, **({"annotations": annotations} if annotations else {})})
        entry = docker.setdefault(
            image.id,
            {
                "Config": _blob_name(image.id),
                "RepoTags": [],
                "Layers": [_blob_name(each["digest"]) for each in image.manifest["layers"]],
            },
        )
        if reference:
            entry["RepoTags"].append(parse_reference(reference).familiar())
    archive.add(Member("blobs", "5", mode=0o755))
    archive.add(Member("blobs/sha256", "5", mode=0o755))
    for digest, size in sorted(blobs.items()):
        archive.add(Member(_blob_name(digest), size=size), _pieces(store.blob_path(digest)))
    documents = {
        "index.json": {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": index,
        },
        "manifest.json": list(docker.values()),
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
    }
    for name, document in documents.items():
        content = dump_json(document).encode()
        archive.add(Member(name, size=len(content)), [content])
    archive.close()


def _described(
    store: ImageStore, image: Image, platform: str | None, blobs: dict[str, int]
) -> dict[str, Any]:
    """What is saved of an image: all of its index if all is here, else one manifest."""
    whole: dict[str, int] = {}
    if not platform and _gather(store, image.descriptor["digest"], whole):
        blobs.update(whole)
        return dict(image.descriptor)
    content = _manifest_of(store, image)
    if not _gather(store, content["digest"], whole):
        raise CorruptState(f"image {image.id} is not whole", hint="pull it again")
    blobs.update(whole)
    return content


def _manifest_of(store: ImageStore, image: Image) -> dict[str, Any]:
    """The descriptor of the manifest that was chosen for an image's platform."""
    digest = image.descriptor["digest"]
    document = _document(store, digest)
    for entry in document.get("manifests") or ():
        if store.has_blob(entry["digest"]):
            inner = _document(store, entry["digest"])
            if (inner.get("config") or {}).get("digest") == image.id:
                return {key: entry[key] for key in ("mediaType", "digest", "size")}
    return dict(image.descriptor)


def _gather(store: ImageStore, digest: str, blobs: dict[str, int]) -> bool:
    """Add what `digest` leads to; False where some of it is not in the store."""
    if digest in blobs:
        return True
    if not store.has_blob(digest):
        return False
    document = _document(store, digest)
    blobs[digest] = os.stat(store.blob_path(digest)).st_size
    if "manifests" in document:
        return all(_gather(store, each["digest"], blobs) for each in document["manifests"])
    for each in (document["config"], *document["layers"]):
        if not store.has_blob(each["digest"]):
            return False
        blobs[each["digest"]] = os.stat(store.blob_path(each["digest"])).st_size
    return True


def _blob_name(digest: str) -> str:
    return _BLOBS + digest.removeprefix("sha256:")


def _pieces(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(1 << 20):
            yield piece
