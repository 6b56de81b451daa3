"""A build's context: the files that COPY and ADD may take, wherever they come from."""

from __future__ import annotations

import os

from wherry.builder.ignore import Ignore, read_ignore
from wherry.errors import NotFound, UsageError
from wherry.image.reference import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from wherry.image.store import Image, ImageStore
    from wherry.oci.image_spec import Descriptor

_NAMES = ("Dockerfile", "dockerfile", "Containerfile")
# What compressed streams begin with: gzip, bzip2, xz, zstd.
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")


class Context:
    """A directory of this host; what its ignore file names does not exist."""

    def __init__(
        self, directory: str, ignore: Ignore | None = None, *, fetched_from: str = ""
    ) -> None:
        """`directory` is "" for a context without files.

        `fetched_from`: what it was fetched from, for this build alone.
        """
        self.directory = directory
        self.ignore = ignore or Ignore(())
        self.fetched_from = fetched_from
        # When the commit was made that it is, in seconds since the epoch.
        self.moment: int | None = None

    def lacks(self, _patterns: Sequence[str], /) -> bool:
        """Whether files that COPY would take for patterns are not in the directory yet."""
        return False

    def load(self, _patterns: Sequence[str], /) -> dict[str, Any]:
        """The work of the step that brings them; what it has found is told in a dict."""
        return {}

    def loaded(self) -> None:
        """Take notice, where the steps are followed, of what a step has brought."""


class ImageLayout:
    """An image in an OCI image layout of the host, whose files are a context."""

    def __init__(self, context: Context, descriptor: Descriptor) -> None:
        self.context = context
        self.descriptor = descriptor

    def take(self, store: ImageStore, platform: str = "") -> Image:
        """Bring it into the store: of an index, the image for `platform`."""
        from wherry.image.layouts import take_image

        def load(paths: Sequence[str]) -> None:
            if self.context.lacks(paths):
                self.context.load(paths)

        return take_image(store, self.context.directory, self.descriptor, platform, load)


def image_layout(place: str) -> ImageLayout:
    """The image of `DIRECTORY[:TAG|@DIGEST]`. Raises NotFound."""
    from wherry.image.layouts import find

    directory, mark, wanted = place.rpartition("@")
    if not mark:
        directory, _, wanted = place.rpartition(":")
    if not directory or "/" in wanted or os.sep in wanted:
        directory, wanted = place, ""
    directory = os.path.realpath(directory)
    return ImageLayout(Context(directory), find(directory, wanted))


def context_key(name: str) -> str:
    """What contexts of one name have in common: `app`, and `docker.io/library/app:latest`."""
    try:
        return parse_reference(name.lower()).canonical()
    except UsageError:
        return name.lower()


def find_dockerfile(directory: str, path: str) -> tuple[str, str]:
    """The Dockerfile of a context, and what it is called; `path` is what -f says. Raises."""
    if path:
        return _existing(path), os.path.basename(path)
    for name in _NAMES:
        if os.path.exists(os.path.join(directory, name)):
            return inside(directory, name), name
    raise NotFound("failed to read dockerfile: open Dockerfile: no such file or directory")


def _existing(path: str) -> str:
    if not os.path.exists(path):
        raise NotFound(
            f"failed to read dockerfile: open {os.path.basename(path)}: no such file or directory"
        )
    return path


def read_text(path: str) -> str:
    """The text of a Dockerfile or an ignore file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"failed to read dockerfile: open {path}: {reason}") from error


def local_context(
    directory: str, dockerfile: str, ignore: str = "", *, fetched_from: str = ""
) -> Context:
    """The context of a directory, with the ignore file of the Dockerfile or its own.

    `ignore` is one that takes their place.
    """
    if ignore and not os.path.isfile(ignore):
        raise NotFound(f"failed to read the ignore file: open {ignore}: no such file or directory")
    own = (f"{dockerfile}.dockerignore", f"{directory}/.dockerignore") if dockerfile else ()
    for path in (ignore,) if ignore else own:
        if os.path.isfile(path) and not os.path.islink(path):
            try:
                found = read_ignore(read_text(path))
                return Context(directory, found, fetched_from=fetched_from)
            except ValueError as error:
                raise UsageError(f"{path}: {error}") from error
    return Context(directory, fetched_from=fetched_from)


def decode(content: bytes) -> str:
    """The text of a Dockerfile, whatever bytes are in it."""
    return content.decode("utf-8", "surrogateescape")


# ---- contexts that come from elsewhere ----


class _Pieces:
    """A stream of pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, _size: int = -1, /) -> bytes:
        """The next piece, whatever its size; none at the end."""
        return next(self._pieces, b"")


class Headed:
    """A stream of which the first bytes have been read already."""

    def __init__(self, head: bytes, stream: Any) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if self._head:
            end = len(self._head) if size < 0 else size
            data, self._head = self._head[:end], self._head[end:]
            return data
        content: bytes = self._stream.read(size)
        return content


def is_archive(head: bytes) -> bool:
    """Whether a stream that begins so is a tar archive, compressed or not."""
    return head.startswith(_MAGIC) or head[257:262] == b"ustar"


def unpack_context(stream: Any, directory: str) -> None:
    """Unpack a tar stream into an empty directory; its files are this user's."""
    from wherry.engine.copy import unpack_here
    from wherry.image.decompress import decompressed

    pieces: Any = _Pieces(decompressed(stream.read))
    unpack_here(pieces, directory, keep_rights=True)


def inside(directory: str, path: str) -> str:
    """A Dockerfile's path in a context that somebody else has made. Raises UsageError."""
    if not path or path == "-":
        return path
    found = os.path.join(directory, os.path.normpath(f"/{path}").lstrip("/"))
    real = os.path.realpath(found)
    if not real.startswith(f"{os.path.realpath(directory)}{os.sep}"):
        raise UsageError(f"failed to read dockerfile: {path} leads out of the context")
    return found
