"""Directories that caches are left in: OCI image layouts, with a cache for each tag.

The directory is one of the host that the build was asked for on. A build elsewhere asks for
what it wants there, as `wherry.origin` has it:

    {"ask": "cache", "place": …, "tag": …, and one of
     "blobs": [descriptor, …]}                             {"lacks": [descriptor, …]}
     "blob": descriptor, "offset": n, "piece": base64}     {}
     "image": descriptor}                                  {}
"""

from __future__ import annotations

import os

from wherry import origin
from wherry.errors import AccessDenied, CorruptState
from wherry.files import Draft, Lock, make_dir, read_json, write_all, write_atomic
from wherry.human import human_size
from wherry.image import layouts
from wherry.image.assembly import INDEX
from wherry.image.digests import split
from wherry.image.store import LAYOUT, NAME
from wherry.lean import dump_json, load_json, sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence
    from typing import Any

    from wherry.image.store import ImageStore
    from wherry.oci.image_spec import Descriptor

# With what is around it a piece has to fit into a message: see wherry.container.wire.
_PIECE = 1 << 18


def leave(store: ImageStore, place: str, tag: str, descriptor: Descriptor) -> None:
    """Leave an image of the store in the directory `place`, with a tag."""
    directory = _AskedDirectory(place, tag) if origin.is_elsewhere() else Directory(place, tag)
    manifest = load_json(store.read_blob(descriptor["digest"]))
    lacking = directory.lacks([*manifest["layers"], manifest["config"], descriptor])
    for each in lacking:
        directory.put(each, store.blob_path(each["digest"]))
    directory.name(descriptor)
    print(f"writing cache: {human_size(sum(each['size'] for each in lacking))}")


class Directory:
    """A directory of this host."""

    def __init__(self, place: str, tag: str) -> None:
        self._place = place
        self._tag = tag

    def _path(self, digest: str) -> str:
        return f"{self._place}/{layouts.blob_path(digest)}"

    def lacks(self, wanted: Iterable[Descriptor]) -> list[Descriptor]:
        """Which of these blobs are not there whole."""
        return [each for each in wanted if _size(self._path(each["digest"])) != each["size"]]

    def put(self, descriptor: Descriptor, source: str) -> None:
        """Copy a blob."""
        from wherry.container.copy import copy_content

        with open(source, "rb") as file, self._draft(descriptor) as draft:
            copy_content(file.fileno(), draft, descriptor["size"])

    def taking(self, descriptor: Descriptor) -> Generator[None, bytes, None]:
        """Takes the pieces of a blob, and ends with the last one: it is there then.

        Raises CorruptState for another blob.
        """
        digest, size = sha256(), 0
        with self._draft(descriptor) as draft:
            while size < descriptor["size"]:
                piece = yield
                write_all(draft, piece)
                digest.update(piece)
                size += len(piece)
            if (f"sha256:{digest.hexdigest()}", size) != (descriptor["digest"], descriptor["size"]):
                raise CorruptState(f"what was sent is not {descriptor['digest']}")

    def _draft(self, descriptor: Descriptor) -> Draft:
        path = self._path(descriptor["digest"])
        make_dir(os.path.dirname(path), 0o755)
        return Draft(path, mode=0o644)

    def name(self, descriptor: Descriptor) -> None:
        """Give the tag to an image whose blobs are there; the other tags keep theirs."""
        path = f"{self._place}/index.json"
        write_atomic(f"{self._place}/oci-layout", LAYOUT, mode=0o644)
        with Lock(f"{path}.lock"):
            try:
                others = read_json(path, layouts.INDEX)["manifests"]
            except FileNotFoundError:
                others = []
            kept = [each for each in others if layouts.named(each) != self._tag]
            index = {
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": [*kept, {**descriptor, "annotations": {NAME: self._tag}}],
            }
            write_atomic(path, dump_json(index).encode(), mode=0o644)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return -1  # what it is, writing tells


class _AskedDirectory:
    """A directory of the host that this build was asked for on."""

    def __init__(self, place: str, tag: str) -> None:
        self._named = {"ask": "cache", "place": place, "tag": tag}

    def lacks(self, wanted: Sequence[Descriptor]) -> list[Descriptor]:
        found: list[Descriptor] = origin.ask(**self._named, blobs=wanted)["lacks"]
        return found

    def put(self, descriptor: Descriptor, source: str) -> None:
        from binascii import b2a_base64

        offset = 0
        with open(source, "rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                text = b2a_base64(piece, newline=False).decode()
                origin.ask(**self._named, blob=descriptor, offset=offset, piece=text)
                offset += len(piece)

    def name(self, descriptor: Descriptor) -> None:
        origin.ask(**self._named, image=descriptor)


class Arrivals:
    """The host's side: what a build elsewhere may leave in directories that its words name."""

    def __init__(self, places: Iterable[tuple[str, str]]) -> None:
        """`places` are directories, each with the tag that is given there."""
        self._directories = {(place, tag): Directory(place, tag) for place, tag in places}
        # The blob that is on its way: of which directory it is, how much has come, and who
        # takes the rest.
        self._directory: Directory | None = None
        self._blob: Descriptor | None = None
        self._size = 0
        self._taking: Generator[None, bytes, None] | None = None

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Do what is asked for. Raises what keeps it from being done."""
        directory = self._directories.get((str(question["place"]), str(question["tag"])))
        if directory is None:
            raise AccessDenied(f"the command leaves no cache in {question['place']!r}")
        if "blobs" in question:
            return {"lacks": directory.lacks([_checked(each) for each in question["blobs"]])}
        if "image" in question:
            image = _checked(question["image"])
            if directory.lacks([image]):
                raise AccessDenied(f"{image['digest']} has not been sent")
            directory.name(image)
        else:
            self._take(directory, question)
        return {}

    def _take(self, directory: Directory, question: Mapping[str, Any]) -> None:
        from binascii import a2b_base64

        blob, piece = _checked(question["blob"]), a2b_base64(question["piece"])
        if question["offset"] == 0:
            self.close()
            self._directory, self._blob = directory, blob
            self._taking = directory.taking(blob)
            next(self._taking)
        if (directory, blob, question["offset"]) != (self._directory, self._blob, self._size):
            raise AccessDenied(f"no piece of {blob['digest']} is due")
        assert self._taking is not None
        self._size += len(piece)
        try:
            self._taking.send(piece)
        except StopIteration:
            self.close()

    def close(self) -> None:
        """Leave nothing of a blob that has not come whole."""
        if self._taking is not None:
            self._taking.close()
        self._taking = self._blob = self._directory = None
        self._size = 0


def _checked(descriptor: Mapping[str, Any]) -> Descriptor:
    """A descriptor of somebody else's, whose digest is a name of ours.

    Raises AccessDenied, and UsageError where it has no digest.
    """
    digest, size = str(descriptor["digest"]), int(descriptor["size"])
    algorithm, _ = split(digest)
    if algorithm != "sha256" or size <= 0:
        raise AccessDenied(f"no blob of a cache: {digest}")
    return {"mediaType": str(descriptor["mediaType"]), "digest": digest, "size": size}
