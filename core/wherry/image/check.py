"""Finding what a power failure, a full disk or a stray hand has done to images.

A blob must be what its digest says, a name must lead to an image, an unpacked layer must
hold what its blob holds. What is mended is dropped, so that the next pull brings it
again, or unpacked anew from a blob that is whole.
"""

from __future__ import annotations

import os
import stat

from wherry import paths
from wherry.container.copy import remove_tree
from wherry.errors import CorruptState, WherryError
from wherry.files import open_regular, read_json, write_atomic, write_json
from wherry.image.blobs import is_without_blob
from wherry.image.decompress import decompressed
from wherry.image.digests import LENGTHS, file_digest
from wherry.image.layers import StoredLayer, layer_directory, unpack
from wherry.image.store import LAYOUT, name_of
from wherry.image.streams import has_stream, write_stream
from wherry.image.tar import DIRECTORY, FILE, SYMLINK, TarReader
from wherry.lean import load_json
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import Any

    from wherry.image.store import ImageStore
    from wherry.image.tar import Member
    from wherry.oci.image_spec import Descriptor

    Unshared = Callable[[Callable[[], Any]], Any]

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_FILE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_PIECE = 1 << 20


@value
class Problem:
    """Something that is not as it should be, and what mends it."""

    text: str
    # Does the mending, and raises where it cannot; None where wherry has no way.
    mend: Callable[[], object] | None
    # What the user can do about it.
    hint: str = ""


def check_images(
    store: ImageStore, *, used_layers: Collection[str], unshared: Unshared, quick: bool
) -> Iterator[Problem]:
    """The problems of the image store and its layers, one after the other.

    Mend each before the next is asked for: it may be the cause of others. The caller
    holds `store.held()`, or its exclusive twin to mend. `quick` reads no contents.
    """
    return _Check(store, used_layers, unshared, quick).problems()


class _Check:
    def __init__(
        self, store: ImageStore, used_layers: Collection[str], unshared: Unshared, quick: bool
    ) -> None:
        self._store = store
        self._used_layers = used_layers
        self._unshared = unshared
        self._quick = quick

    def problems(self) -> Iterator[Problem]:
        yield from self._index()
        if not self._quick:
            yield from self._blobs()
        yield from self._names()
        yield from self._layers()

    # ---- index.json ----

    def _index(self) -> Iterator[Problem]:
        try:
            self._store.entries()
        except CorruptState as error:
            yield Problem(text=error.message, mend=self._make_index, hint="every name is lost")
        if os.path.isdir(f"{self._store.root}/blobs"):
            path = f"{self._store.root}/oci-layout"
            try:
                read_json(path, {"imageLayoutVersion!": str})
            except (CorruptState, FileNotFoundError) as error:
                if isinstance(error, FileNotFoundError) and not any(self._all_blobs()):
                    return  # it is written last, with the first image
                yield Problem(text=f"{path} is damaged", mend=lambda: _make_layout(path))

    def _make_index(self) -> None:
        """Begin index.json anew, with all images that there are, without their names."""
        path = f"{self._store.root}/index.json"
        remove_tree(f"{path}.damaged")
        os.replace(path, f"{path}.damaged")
        write_json(
            path,
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": [],
            },
            mode=0o644,
        )
        for digest, size in self._all_blobs():
            document = self._document(digest, size)
            if "layers" in document and "config" in document:
                media_type = str(document.get("mediaType"))
                self._store.keep({"mediaType": media_type, "digest": digest, "size": size})

    def _document(self, digest: str, size: int) -> dict[str, Any]:
        if size > _PIECE:
            return {}
        try:
            document = load_json(self._store.read_blob(digest))
        except (ValueError, WherryError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}

    # ---- blobs ----

    def _all_blobs(self) -> Iterator[tuple[str, int]]:
        for algorithm in LENGTHS:
            directory = f"{self._store.root}/blobs/{algorithm}"
            for name in sorted(_names_in(directory)):
                if not name.endswith(".tmp"):
                    yield f"{algorithm}:{name}", os.lstat(f"{directory}/{name}").st_size

    def _blobs(self) -> Iterator[Problem]:
        for digest, _ in self._all_blobs():
            path = f"{self._store.root}/blobs/{digest.replace(':', '/')}"
            algorithm, _, encoded = digest.partition(":")
            if _digest(path, algorithm) != encoded:
                yield Problem(
                    text=f"blob {digest} is damaged",
                    mend=lambda path=path: remove_tree(path),  # type: ignore[misc]
                    hint="it is dropped by --repair, and fetched again by the next pull",
                )

    # ---- names ----

    def _names(self) -> Iterator[Problem]:
        for entry in self._store.entries():
            name = name_of(entry) or entry["digest"]
            try:
                missing = self._missing_of(entry)
            except (WherryError, KeyError, TypeError) as error:
                yield Problem(
                    text=f"image {name} cannot be read: {getattr(error, 'message', error)}",
                    mend=lambda entry=entry: self._store.drop(entry["digest"]),  # type: ignore[misc]
                    hint=f"pull it again: wherry pull {name}",
                )
                continue
            if missing:
                yield Problem(
                    text=f"image {name} lacks {len(missing)} of its layers ({missing[0]})",
                    mend=None,
                    hint=f"to save or push it, pull it again: wherry pull {name}",
                )

    def _missing_of(self, entry: Descriptor) -> list[str]:
        """The layers of a named image that are not there. Raises where it cannot be read."""
        image = self._store.image_of(entry)
        return [
            layer["digest"]
            for layer in image.manifest["layers"]
            if not self._store.has_blob(layer["digest"]) and not is_without_blob(self._store, layer)
        ]

    # ---- unpacked layers ----

    def _layers(self) -> Iterator[Problem]:
        stored = {
            diff_id: StoredLayer(self._store, descriptor, diff_id)
            for image in self._store.images()
            for descriptor, diff_id in zip(image.manifest["layers"], image.diff_ids, strict=False)
            if self._store.has_blob(descriptor["digest"])
        }
        for name in sorted(_names_in(f"{paths.layers()}/sha256")):
            diff_id = f"sha256:{name}"
            if "." in name:
                continue
            fault = self._fault(diff_id, stored.get(diff_id))
            if fault:
                yield self._layer_problem(diff_id, fault, stored.get(diff_id))
        for diff_id in sorted(self._used_layers):
            if not os.path.isdir(layer_directory(diff_id)):
                yield self._layer_problem(diff_id, "is missing", stored.get(diff_id))

    def _fault(self, diff_id: str, layer: StoredLayer | None) -> str:
        directory = layer_directory(diff_id)
        if not os.path.isdir(f"{directory}/diff"):
            return "has no files"
        try:
            read_json(f"{directory}/layer.json", {"size!": int})
        except (FileNotFoundError, CorruptState):
            return "has no layer.json that can be read"
        if self._quick:
            return ""
        if layer is None:
            return self._fault_of_stream(diff_id)
        different: list[str] = self._unshared(lambda: differing_files(f"{directory}/diff", layer))
        if not different:
            return ""
        more = f" and {len(different) - 1} other files are" if len(different) > 1 else " is"
        return f"is damaged: /{different[0]}{more} not what the layer's blob holds"

    def _fault_of_stream(self, diff_id: str) -> str:
        """What is wrong with a layer that was made here, and has no blob."""
        if not has_stream(diff_id):
            return ""
        try:
            self._unshared(lambda: write_stream(diff_id, len))
        except CorruptState:
            return "is damaged: its files are not what they were when it was made"
        return ""

    def _layer_problem(self, diff_id: str, fault: str, layer: StoredLayer | None) -> Problem:
        is_used = diff_id in self._used_layers
        mend = None if is_used and layer is None else lambda: self._renew(diff_id, layer)
        return Problem(
            text=f"the unpacked layer {diff_id} {fault}",
            mend=mend,
            hint=""
            if mend
            else "containers stand on it, and its image is gone: pull that again, then check again",
        )

    def _renew(self, diff_id: str, layer: StoredLayer | None) -> None:
        """Unpack a layer again; without its blob, remove it, so that a pull brings it."""
        directory = layer_directory(diff_id)
        grave = f"{directory}.gone"
        self._unshared(lambda: remove_tree(grave))
        if os.path.isdir(directory):
            os.rename(directory, grave)
        if layer is not None:
            unpack([layer], self._unshared)
        self._unshared(lambda: remove_tree(grave))


def _make_layout(path: str) -> None:
    remove_tree(path)
    write_atomic(path, LAYOUT, mode=0o644)


def differing_files(root: str, layer: StoredLayer) -> list[str]:
    """The paths below `root` whose content is not what the layer's blob says."""
    differing: dict[str, None] = {}
    top = os.open(root, _DIRECTORY)
    try:
        with layer.open() as source:  # type: ignore[attr-defined]
            pieces = decompressed(source.read)
            archive = TarReader(lambda size: next(pieces, b""))  # noqa: ARG005
            for member in archive:
                path = "/".join(part for part in member.name.split("/") if part not in ("", "."))
                # A later member of the same name takes the place of an earlier one.
                differing.pop(path, None)
                if member.type != DIRECTORY:
                    for below in [each for each in differing if each.startswith(f"{path}/")]:
                        del differing[below]
                if not _is_same(top, path, member, archive):
                    differing[path] = None
    except CorruptState:
        return []  # nothing is known of the layer; its blob is a problem of its own
    finally:
        os.close(top)
    return list(differing)


def _is_same(top: int, path: str, member: Member, archive: TarReader) -> bool:
    if member.type not in (FILE, SYMLINK) or path.rpartition("/")[2].startswith(".wh."):
        return True
    try:
        directory = _descend(top, path)
    except OSError as error:
        # Behind a link there is nothing to compare; without its directory it is not there.
        return not isinstance(error, FileNotFoundError)
    try:
        name = path.rpartition("/")[2]
        if member.type == SYMLINK:
            return os.readlink(name, dir_fd=directory) == member.linkname
        return _has_content(name, directory, member.size, archive)
    except OSError:
        return False
    finally:
        os.close(directory)


def _descend(top: int, path: str) -> int:
    """A descriptor of the directory that holds `path`, through no link."""
    directory = os.dup(top)
    for part in path.split("/")[:-1]:
        try:
            inner = os.open(part, _DIRECTORY, dir_fd=directory)
        finally:
            os.close(directory)
        directory = inner
    return directory


def _has_content(name: str, directory: int, size: int, archive: TarReader) -> bool:
    with open(os.open(name, _FILE, dir_fd=directory), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            return False
        return all(file.read(len(piece)) == piece for piece in archive.pieces())


def _digest(path: str, algorithm: str) -> str:
    try:
        descriptor = open_regular(path)
    except (CorruptState, FileNotFoundError):
        return ""
    try:
        return file_digest(descriptor, algorithm)
    finally:
        os.close(descriptor)


def _names_in(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
