"""The files of an archive of images, put aside on the store's file system.

A name in an archive is only ever a name: the files lie below numbers.
"""

from __future__ import annotations

import os
import posixpath

from wherry.errors import CorruptState
from wherry.files import storage_error
from wherry.image.assembly import Workspace
from wherry.image.digests import LENGTHS, hasher
from wherry.image.tar import FILE, HARD_LINK, SYMLINK, TarReader
from wherry.lean import load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from wherry.image.layers import Source
    from wherry.image.store import ImageStore
    from wherry.oci.image_spec import Descriptor

_LARGEST_DOCUMENT = 16 << 20
_MOST_LINKS = 8


class ArchiveFiles(Workspace):
    """What a tar stream holds, by name, with digests."""

    def __init__(self, store: ImageStore) -> None:
        super().__init__(store)
        self._paths: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._links: dict[str, str] = {}
        self._count = 0

    def take(self, read: Callable[[int], bytes]) -> None:
        """Put aside every file of a tar stream; of two with one name the later counts."""
        archive = TarReader(read)
        for member in archive:
            name = _plain(member.name)
            if member.type == FILE:
                self._links.pop(name, None)
                self.write(name, archive.pieces())
            elif member.type == SYMLINK:
                self._links[name] = _plain(posixpath.join(posixpath.dirname(name), member.linkname))
            elif member.type == HARD_LINK:
                self._links[name] = _plain(member.linkname)

    def write(self, name: str, pieces: Iterable[bytes]) -> None:
        """Put aside one file."""
        # A number of its own: a file whose digest is known is never written to again.
        path = self.path(str(self._count))
        self._count += 1
        algorithm = algorithm_of_blob(name) or "sha256"
        digest = hasher(algorithm)
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
        self._digests[name] = f"{algorithm}:{digest.hexdigest()}"

    def names(self) -> list[str]:
        """The names of files, not of links."""
        return [name for name in self._paths if name not in self._links]

    def __contains__(self, name: str) -> bool:
        return self._target(name) in self._paths

    def file(self, name: str) -> str:
        """The path of a file. Raises CorruptState where the archive has none of this name."""
        found = self._paths.get(self._target(name))
        if found is None:
            raise CorruptState(f"the archive has no {name}, which it tells of")
        return found

    def size(self, name: str) -> int:
        return os.stat(self.file(name)).st_size

    def digest(self, name: str) -> str:
        """The digest of a file's bytes."""
        self.file(name)
        return self._digests[self._target(name)]

    def _target(self, name: str) -> str:
        name = _plain(name)
        for _ in range(_MOST_LINKS):
            if name not in self._links:
                return name
            name = self._links[name]
        raise CorruptState(f"the archive's link {name} leads nowhere")

    def document(self, name: str) -> Any:
        """A JSON file. Raises CorruptState."""
        return read_document(self.file(name), f"the archive's {name}")


def algorithm_of_blob(name: str) -> str:
    """The algorithm of the digest that names a blob, as in blobs/sha256/…; "" for other files."""
    parts = name.split("/")
    return parts[1] if len(parts) == 3 and parts[0] == "blobs" and parts[1] in LENGTHS else ""


def read_document(path: str, what: str) -> Any:
    """The JSON in the file at `path`, called `what`. Raises CorruptState."""
    with open(path, "rb") as file:
        content = file.read(_LARGEST_DOCUMENT + 1)
    if len(content) > _LARGEST_DOCUMENT:
        raise CorruptState(f"{what} is too large for what it should be")
    try:
        return load_json(content)
    except (ValueError, RecursionError) as error:
        raise CorruptState(f"{what} is damaged: {error}") from error


def _plain(name: str) -> str:
    return posixpath.normpath(name.lstrip("/") or ".")


class FileLayer:
    """A layer whose blob is in a file that is not in the store yet."""

    def __init__(self, descriptor: Descriptor, diff_id: str, path: str) -> None:
        self.descriptor = descriptor
        self.diff_id = diff_id
        self._path = path

    def open(self) -> Source:
        return open(self._path, "rb", buffering=0)
