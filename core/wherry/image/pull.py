"""From a registry into the image store.

A pull is a straight line: the manifest, the config, three layers at a time, the tag. The
tag comes last, so that an image that can be found is whole. Every blob goes through
`ImageStore.ingest`, which lets one process at a time fetch it, keeps what a killed one
had, and verifies the whole: a pull that is said again goes on where it stopped.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

from wherry.errors import (
    CorruptState,
    NotFound,
    RegistryError,
    Unsupported,
    UsageError,
    WherryError,
)
from wherry.image.arrival import Arrivals
from wherry.image.connect import connect
from wherry.image.parallel import in_parallel
from wherry.image.platform import choose_manifest, host_platform, parse_platform, platform_of
from wherry.image.progress import Progress
from wherry.image.reference import check_digest
from wherry.image.registry import INDEXES, Manifest, read_manifest
from wherry.image.sources import remember_source
from wherry.image.store import name_of
from wherry.image.transport import Interrupted
from wherry.values import value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from wherry.image.arrival import ArrivingLayer
    from wherry.image.ingest import Ingest
    from wherry.image.reference import Reference
    from wherry.image.registry import BlobStream, Registry
    from wherry.image.store import ImageStore
    from wherry.oci.image_spec import Descriptor

    # Unpacks layers while they arrive; it runs in a thread, and may fork at once.
    Unpack = Callable[[Sequence[ArrivingLayer]], None]

_MAX_CONFIG = 8 << 20
# Seconds between two looks at how far unpacking is, and to let it end after an error.
_TICK = 0.1
_PARTING = 5.0
_MAX_NESTING = 4
_CONFIGS = frozenset(
    (
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    )
)


@value
class _Layer:
    """A layer to bring: its descriptor, and the digest of what is in it."""

    descriptor: Descriptor
    diff_id: str

    @property
    def digest(self) -> str:
        digest: str = self.descriptor["digest"]
        return digest

    @property
    def short(self) -> str:
        return self.digest.partition(":")[2][:12]


def pull_image(
    store: ImageStore,
    reference: Reference,
    *,
    platform: str | None = None,
    progress: Progress | None = None,
    unpack: Unpack | None = None,
    registry: Registry | None = None,
) -> Descriptor:
    """Bring an image into the store and tag it; the descriptor of its manifest or index.

    An index is kept whole, with the manifest and the blobs of one platform. `unpack` is
    given all layers before the first one is fetched; the pull ends when both are done.
    """
    progress = progress or Progress()
    registry = registry or connect(reference, progress)
    return _Pull(store, registry, reference, platform, progress, unpack).run()


class _Pull:
    """One image on its way into the store."""

    def __init__(
        self,
        store: ImageStore,
        registry: Registry,
        reference: Reference,
        platform: str | None,
        progress: Progress,
        unpack: Unpack | None,
    ) -> None:
        self._store = store
        self._registry = registry
        self._reference = reference
        self._asked_platform = platform
        self._platform = parse_platform(platform) if platform else host_platform()
        self._progress = progress
        self._unpack = unpack
        self._arrivals: Arrivals | None = None
        self._is_new = False
        self._fetched: set[str] = set()
        self._cancelled = threading.Event()

    def run(self) -> Descriptor:
        with self._store.held():
            return self._run()

    def _run(self) -> Descriptor:
        reference = self._reference
        label = reference.digest or reference.tag
        self._progress.message(f"{label}: Pulling from {reference.path}")
        top = self._manifest(reference)
        chain = self._choose(top)
        manifest = chain[-1].document()
        config = self._config(manifest)
        self._fetch_layers(_layers(manifest, config, reference))
        self._progress.settle()
        for part in reversed(chain):
            if not self._store.has_blob(part.digest):
                self._store.put_blob(part.content, part.digest.partition(":")[0])
        key = reference.with_digest(reference.digest) if reference.digest else reference
        self._is_new |= not self._is_known(key.canonical(), top.digest)
        self._store.tag(key.canonical(), top.descriptor)
        if self._registry.limit and self._is_new:
            self._progress.message(f"{reference.domain}: {self._registry.limit}")
        self._progress.message(f"Digest: {top.digest}")
        self._progress.message(
            f"Status: Downloaded newer image for {reference.familiar()}"
            if self._is_new
            else f"Status: Image is up to date for {reference.familiar()}"
        )
        return top.descriptor

    def _is_known(self, name: str, digest: str) -> bool:
        """Whether the store has this already under this very name."""
        entries = self._store.entries()
        return any(name_of(entry) == name and entry["digest"] == digest for entry in entries)

    # --- manifest and config ------------------------------------------------------

    def _manifest(self, reference: Reference) -> Manifest:
        """A manifest, from the store where it has what the registry's tag stands for.

        Asking with HEAD first spares docker.io's pull limit, which counts GETs.
        """
        if reference.digest:
            if not self._store.has_blob(reference.digest):
                self._is_new = True
                return self._registry.manifest(reference)
            return read_manifest(self._store.read_blob(reference.digest), reference)
        head = self._registry.head_manifest(reference)
        if head is not None and self._store.has_blob(head["digest"]):
            return Manifest(
                content=self._store.read_blob(head["digest"]),
                media_type=head["mediaType"],
                digest=head["digest"],
            )
        self._is_new = True
        return self._registry.manifest(reference)

    def _choose(self, top: Manifest) -> list[Manifest]:
        """From `top` down to the manifest for our platform: indexes may hold indexes."""
        chain = [top]
        while chain[-1].media_type in INDEXES:
            if len(chain) > _MAX_NESTING:
                raise Unsupported(f"{self._reference.familiar()}: its indexes are nested too deep")
            entry = choose_manifest(entries_of(chain[-1]), self._platform)
            chain.append(self._manifest(self._reference.with_digest(str(entry["digest"]))))
            if len(chain[-1].content) != entry.get("size"):
                raise CorruptState(f"manifest {entry['digest']} has not the size its index says")
        return chain

    def _config(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        descriptor = manifest.get("config")
        check_descriptor(descriptor, self._reference.familiar())
        assert isinstance(descriptor, dict)
        if descriptor.get("mediaType") not in _CONFIGS:
            raise Unsupported(
                f"{self._reference.familiar()} is no container image: its config is "
                f"{descriptor.get('mediaType')!r}"
            )
        digest, size = descriptor["digest"], descriptor["size"]
        if size > _MAX_CONFIG:
            raise CorruptState(f"config {digest} is larger than {_MAX_CONFIG} bytes")
        if self._store.has_blob(digest):
            content = self._store.read_blob(digest)
        else:
            self._is_new = True
            content = self._registry.read_blob(self._reference, digest, size)
            self._store.put_blob(content, digest.partition(":")[0])
        try:
            config = json.loads(content)
        except ValueError as error:
            raise CorruptState(f"config {digest} is not JSON: {error}") from error
        if not isinstance(config, dict):
            raise CorruptState(f"config {digest} is not a JSON object")
        actual = platform_of(config)
        if self._asked_platform and actual.architecture != self._platform.architecture:
            raise NotFound(
                f"image with reference {self._reference.familiar()} was found but does not match "
                f"the specified platform: wanted {self._platform}, actual: {actual}"
            )
        return config

    # --- layers -------------------------------------------------------------------

    def _fetch_layers(self, layers: list[_Layer]) -> None:
        """Bring what is missing, three at a time, and have it unpacked meanwhile."""
        # An image may have the same layer twice.
        different = list({layer.digest: layer for layer in layers}.values())
        for layer in different:
            is_here = self._store.has_blob(layer.digest)
            self._progress.update(layer.short, "Waiting" if is_here else "Pulling fs layer")
        if self._unpack is None:
            in_parallel(self._fetch, different, self._cancelled)
        elif not self._fetch_and_unpack(different, self._unpack):
            # What had arrived turned out to be wrong, and was fetched anew: unpack that.
            self._fetch_and_unpack(different, self._unpack)
        for layer in different:
            done = "Pull complete" if layer.digest in self._fetched else "Already exists"
            self._progress.update(layer.short, done)

    def _fetch_and_unpack(self, layers: list[_Layer], unpack: Unpack) -> bool:
        """Fetch and unpack at the same time; False where a layer began twice."""
        failures: list[BaseException] = []
        pairs = [(layer.descriptor, layer.diff_id) for layer in layers]
        with Arrivals(self._store, pairs) as arrivals:

            def run() -> None:
                try:
                    unpack(arrivals.layers)
                except BaseException as error:
                    # Whether the layer is to blame shows when it is whole and verified.
                    failures.append(error)
                finally:
                    arrivals.begin()

            self._arrivals = arrivals
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            # A fork belongs before the threads that download.
            arrivals.wait_for_reader()
            try:
                in_parallel(self._fetch, layers, self._cancelled)
                while thread.is_alive():
                    thread.join(_TICK)
                    self._show_unpacking(layers, arrivals)
            except BaseException:
                arrivals.fail()
                thread.join(_PARTING)
                raise
            finally:
                self._arrivals = None
            if failures and not arrivals.has_failed:
                raise failures[0]
            return not failures

    def _show_unpacking(self, layers: list[_Layer], arrivals: Arrivals) -> None:
        for layer in layers:
            done, size = arrivals.has_been_read(layer.digest), layer.descriptor["size"]
            if 0 < done < size:
                self._progress.update(layer.short, "Extracting", done, size)

    def _fetch(self, layer: _Layer) -> None:
        size = layer.descriptor["size"]
        if not self._store.has_blob(layer.digest):
            self._is_new = True
            self._fetched.add(layer.digest)
            self._progress.update(layer.short, "Waiting")
            with self._store.ingest(layer.digest, size) as ingest:
                if not ingest.complete:
                    self._download(layer, ingest)
            remember_source(layer.digest, self._reference)
            self._progress.update(layer.short, "Download complete")
        self._tell(layer, size)

    def _tell(self, layer: _Layer, available: int) -> None:
        """Let who unpacks the layer know how much of it is here."""
        if self._arrivals:
            self._arrivals.tell(layer.digest, available)

    def _restart(self, layer: _Layer, ingest: Ingest) -> None:
        """Drop what is there; who has read some of it has read it in vain."""
        ingest.restart()
        if self._arrivals:
            self._arrivals.fail(layer.digest)

    def _download(self, layer: _Layer, ingest: Ingest) -> None:
        offset = ingest.offset
        while True:
            try:
                self._receive(layer, ingest, offset)
                self._progress.update(layer.short, "Verifying Checksum")
                ingest.commit()
                return
            except CorruptState:
                self._restart(layer, ingest)
                # It may be the part from before that is wrong, or a mirror.
                if not offset and not self._registry.blame(layer.digest):
                    raise
                offset = 0

    def _receive(self, layer: _Layer, ingest: Ingest, offset: int) -> None:
        """Write the layer's bytes from `offset` on, however often the connection is lost."""
        size = layer.descriptor["size"]
        patience = self._registry.transport.patience
        failures, furthest = 0, offset
        while offset < size:
            stream = self._open(layer, offset)
            if stream.offset != offset:
                self._restart(layer, ingest)
                offset = 0
            try:
                for piece in stream:
                    if self._cancelled.is_set():
                        raise Interrupted("cancelled")
                    offset += len(piece)
                    if offset > size:
                        raise CorruptState(
                            f"layer {layer.digest} is corrupt: larger than the {size} bytes that "
                            "its manifest says"
                        )
                    ingest.write(piece)
                    self._tell(layer, offset)
                    self._progress.update(layer.short, "Downloading", offset, size)
            except Interrupted as error:
                failures = 0 if offset > furthest else failures + 1
                furthest = max(furthest, offset)
                if self._cancelled.is_set() or failures >= patience.attempts:
                    raise
                self._registry.transport.pause(failures, error.message)
            else:
                if offset < size:
                    raise CorruptState(
                        f"layer {layer.digest} is corrupt: only {offset} of the {size} bytes that "
                        "its manifest says"
                    )
            finally:
                stream.close()

    def _open(self, layer: _Layer, offset: int) -> BlobStream:
        try:
            return self._registry.open_blob(self._reference, layer.digest, offset)
        except NotFound:
            error: WherryError | None = None
            for url in layer.descriptor.get("urls", ()):
                try:
                    return self._registry.open_url(url, offset)
                except RegistryError as failure:
                    error = failure
            raise error or NotFound(
                f"{self._registry.host} has not the layer {layer.digest} of "
                f"{self._reference.familiar()}"
            ) from None


def entries_of(index: Manifest) -> list[Mapping[str, Any]]:
    entries = index.document().get("manifests")
    if not isinstance(entries, list):
        raise CorruptState(f"index {index.digest} has no list of manifests")
    for entry in entries:
        check_descriptor(entry, f"index {index.digest}")
    return entries


def _layers(
    manifest: Mapping[str, Any], config: Mapping[str, Any], reference: Reference
) -> list[_Layer]:
    descriptors = manifest.get("layers") or []
    diff_ids = (config.get("rootfs") or {}).get("diff_ids") or []
    if len(descriptors) != len(diff_ids):
        raise CorruptState(
            f"{reference.familiar()} is corrupt: {len(descriptors)} layers in its manifest, "
            f"{len(diff_ids)} in its config"
        )
    for descriptor in descriptors:
        check_descriptor(descriptor, reference.familiar())
    return [
        _Layer(descriptor=descriptor, diff_id=str(diff_id))
        for descriptor, diff_id in zip(descriptors, diff_ids, strict=True)
    ]


def check_descriptor(descriptor: object, where: str) -> None:
    """Raise CorruptState unless `descriptor` has a size and a digest that can be verified."""
    if isinstance(descriptor, dict) and type(descriptor.get("size")) is int:
        try:
            check_digest(str(descriptor.get("digest")))
        except UsageError as error:
            raise CorruptState(f"{where} is corrupt: {error.message}") from error
        if descriptor["size"] >= 0:
            return
    raise CorruptState(f"{where} is corrupt: it refers to something without digest or size")
