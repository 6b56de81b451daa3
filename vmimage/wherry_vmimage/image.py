"""A tree as an image of one layer, in wherry's image store."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, cast

from wherry import paths
from wherry.files import make_dir

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wherry.image.store import ImageStore
    from wherry.oci.image_spec import Descriptor
    from wherry_vmimage.tree import Tree

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CHUNK = 1 << 20
# Level 6 is 2 % smaller and takes twice as long.
_GZIP_LEVEL = 4

# What Debian calls an architecture, and what an image's config calls it.
ARCHITECTURES = {
    "amd64": ("amd64", ""),
    "arm64": ("arm64", ""),
    "armel": ("arm", "v5"),
    "armhf": ("arm", "v7"),
    "i386": ("386", ""),
    "loong64": ("loong64", ""),
    "mips64el": ("mips64le", ""),
    "ppc64el": ("ppc64le", ""),
    "riscv64": ("riscv64", ""),
    "s390x": ("s390x", ""),
}


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What an image's config says besides its layer."""

    architecture: str  # Debian's word
    created: int  # seconds since the epoch
    command: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    created_by: str


class _Written:
    """A file that knows the digest and the size of what was written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, content: bytes) -> int:
        self._digest.update(content)
        self.size += len(content)
        return self._file.write(content)

    @property
    def digest(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"


class _Gzip:
    """Compresses what is written to it. The stream names no file and no time."""

    def __init__(self, output: _Written) -> None:
        self._output = output
        self._compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)

    def write(self, content: bytes) -> int:
        if compressed := self._compressor.compress(content):
            self._output.write(compressed)
        return len(content)

    def finish(self) -> None:
        self._output.write(self._compressor.flush())


def store_image(
    store: ImageStore,
    tree: Tree,
    facts: ImageFacts,
    *,
    references: Iterable[str] = (),
    compress: bool = True,
) -> Descriptor:
    """Put an image of `tree` into `store`, under `references`; the descriptor of its manifest."""
    # Else a removal at the same time could take it before it has a name.
    with store.held():
        descriptor = _store(store, tree, facts, compress)
        for reference in references:
            store.tag(reference, descriptor)
        return descriptor


def _store(store: ImageStore, tree: Tree, facts: ImageFacts, compress: bool) -> Descriptor:
    with tempfile.TemporaryFile(prefix="wherry-layer-", dir=make_dir(paths.cache())) as file:
        written = _Written(file)
        if compress:
            gzip = _Gzip(written)
            diff_id = tree.write_tar(gzip, newest=facts.created)
            gzip.finish()
        else:
            diff_id = tree.write_tar(written, newest=facts.created)
        _ingest(store, file, written)
    layer: Descriptor = {
        "mediaType": f"{_LAYER}+gzip" if compress else _LAYER,
        "digest": written.digest,
        "size": written.size,
    }
    config = _put_json(store, image_config(facts, diff_id), _CONFIG)
    return _put_json(
        store,
        {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": [layer]},
        _MANIFEST,
    )


def image_config(facts: ImageFacts, diff_id: str) -> dict[str, Any]:
    """The OCI image config of one layer."""
    created = datetime.fromtimestamp(facts.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    architecture, variant = ARCHITECTURES.get(facts.architecture, (facts.architecture, ""))
    return {
        "created": created,
        "architecture": architecture,
        **({"variant": variant} if variant else {}),
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": list(facts.command),
            "Labels": dict(facts.labels),
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
        "history": [{"created": created, "created_by": facts.created_by}],
    }


def _ingest(store: ImageStore, file: IO[bytes], written: _Written) -> None:
    with store.ingest(written.digest, written.size) as ingest:
        if ingest.complete:
            return
        file.seek(ingest.offset)
        while chunk := file.read(_CHUNK):
            ingest.write(chunk)
        ingest.commit()


def _put_json(store: ImageStore, value: dict[str, Any], media_type: str) -> Descriptor:
    content = json.dumps(value, separators=(",", ":")).encode()
    return cast(
        "Descriptor",
        {"mediaType": media_type, "digest": store.put_blob(content), "size": len(content)},
    )
