"""Changes become a layer: its files, and what its tar stream has beside them.

What the stream is made of is the business of `wherry.image.packing`.
"""

from __future__ import annotations

import os
import sys
from hashlib import sha256

from wherry import paths
from wherry.container.copy import copied, remove_tree
from wherry.errors import Unsupported, WherryError
from wherry.files import make_dir, storage_error, write_all
from wherry.forked import Child
from wherry.image import tar
from wherry.image.assembly import LAYER
from wherry.image.layers import publish
from wherry.image.outline import Outline
from wherry.image.packing import Packer, Repeated
from wherry.image.streams import STREAM, StreamNotes
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from wherry.image.difference import Change
    from wherry.image.outline import Contents
    from wherry.image.tar import Member
    from wherry.oci.image_spec import Descriptor

_PIECE = 1 << 20
# From here on the content of a file is copied by itself.
_LARGE = 1 << 20


@value
class PackedLayer:
    """A layer that was made."""

    descriptor: Descriptor
    diff_id: str
    # How many files, directories and removals it has.
    count: int
    warnings: list[str]
    # See `wherry.image.outline`; "" for none.
    outline: str = ""

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def make_layer(
    changes: Callable[[], Iterable[Change]],
    *,
    latest: int | None = None,
    contents: Contents | None = None,
) -> PackedLayer:
    """Make the layer of changes, walked `as_layer`: its files, its digest, but no blob.

    What is younger than `latest` (nanoseconds) gets that time. With `contents` its outline is
    told.

    Both are done at once, by two processes: taking a digest and making files take about as
    long as each other. Runs where container ids are our own, within `ImageStore.held()`.
    """
    draft = make_dir(f"{paths.layers()}/sha256/commit.{os.getpid()}.tmp", 0o711)
    try:
        try:
            return _make(changes(), draft, latest, {}, contents)
        except Repeated as repeated:
            remove_tree(draft)
            make_dir(draft, 0o711)
            return _make(changes(), draft, latest, repeated.paths, contents)
    except BrokenPipeError:
        raise WherryError("the process that unpacks the layer was killed") from None
    except OSError as error:
        raise storage_error(error, "write the layer") from error
    finally:
        remove_tree(draft)


def _make(
    changes: Iterable[Change],
    draft: str,
    latest: int | None,
    repeated: dict[str, int],
    contents: Contents | None,
) -> PackedLayer:
    os.mkdir(f"{draft}/diff", 0o755)
    os.mkdir(f"{draft}/aside", 0o700)
    with _Unpacking(draft) as unpacking:
        stream = _Stream(draft, unpacking.write, contents)
        packer = Packer(stream, latest, repeated)
        packer.pack(changes)
        diff_id, length = stream.finish()
        size = unpacking.finish()
    os.rmdir(f"{draft}/aside")
    if packer.count:
        publish(draft, diff_id, size)
    return PackedLayer(
        descriptor={"mediaType": LAYER, "digest": diff_id, "size": length},
        diff_id=diff_id,
        count=packer.count,
        warnings=packer.warnings,
        outline=stream.outline(),
    )


class _Unpacking:
    """A forked process that unpacks the tar stream that is written to it."""

    def __init__(self, draft: str) -> None:
        self._draft = draft
        reader, self._stream = os.pipe()
        self._child = Child(lambda: self._unpack(reader), given=(reader,), kept=(self._stream,))

    def __enter__(self) -> _Unpacking:
        self._child.start()
        return self

    def _unpack(self, reader: int) -> int:
        """In the child: the bytes of the files that came."""
        if sys.platform == "linux":
            from wherry.image.unpack import Unpacker

            unpacker = Unpacker(f"{self._draft}/diff", f"{self._draft}/aside", _LARGE)
            return unpacker.unpack(lambda size: os.read(reader, size))
        raise Unsupported("containers are on Linux only")

    def write(self, data: bytes) -> None:
        """Raises what went wrong in the process, if it has ended."""
        try:
            write_all(self._stream, data)
        except BrokenPipeError:
            self._child.result()
            raise

    def finish(self) -> int:
        """End the stream, and wait until all of it is unpacked; the bytes of its files."""
        os.close(self._stream)
        self._stream = -1
        return int(self._child.result())

    def __exit__(self, *_: object) -> None:
        if self._stream >= 0:
            os.close(self._stream)
        self._child.end()


class _Stream:
    """The tar stream of a layer: taken down, digested, and told to who unpacks it.

    Nobody is told what large files hold: that is copied beside, where it is taken from.
    """

    def __init__(
        self, draft: str, tell: Callable[[bytes], None], contents: Contents | None
    ) -> None:
        self._tell = tell
        self._contents = contents
        self._outline = Outline(contents) if contents else None
        self._aside = f"{draft}/aside"
        self._count = 0
        self._notes = StreamNotes(f"{draft}/{STREAM}")
        self._digest = sha256()
        self._size = 0
        self._waiting: list[bytes] = []
        self._waiting_size = 0

    def add(self, member: Member, descriptor: int = -1, *, on_way: bool = False) -> None:
        """Append a member; `descriptor` has the content of a file."""
        header, size = tar.header_of(member), member.size
        padding = bytes(-size % tar.BLOCK)
        self._notes.add(header, member.name, size)
        if size >= _LARGE:
            known = self._known(descriptor)
            self._flush()
            self._take(header)
            self._copy(descriptor, size)
            self._take(padding)
            # Now it is there to be taken.
            self._tell(header)
            # A file that was changed meanwhile is known no more.
            content = known if self._known(descriptor) == known else ""
        else:
            self._write(header)
            content = self._write_content(descriptor, size) if size else ""
            self._write(padding)
        if self._outline:
            self._outline.note(member, header, content, on_way=on_way)

    def _known(self, descriptor: int) -> str:
        return self._contents.known(descriptor) if self._contents else ""

    def _write_content(self, descriptor: int, size: int) -> str:
        """What a small file holds, and the digest of that."""
        digest = sha256()
        for piece in _content(descriptor, size):
            self._write(piece)
            digest.update(piece)
        return digest.hexdigest()

    def _write(self, data: bytes) -> None:
        # Headers are small, and a call for each would cost more than its work.
        self._waiting.append(data)
        self._waiting_size += len(data)
        if self._waiting_size >= _PIECE:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._waiting)
        self._waiting, self._waiting_size = [], 0
        self._tell(data)
        self._take(data)

    def _take(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self._size += len(data)

    def _copy(self, descriptor: int, size: int) -> None:
        """Copy a large file, and digest what the copy holds meanwhile."""
        path = f"{self._aside}/{self._count}"
        self._count += 1
        writer = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            for piece in copied(descriptor, writer, size):
                self._take(piece)
        finally:
            os.close(writer)

    def finish(self) -> tuple[str, int]:
        """End the stream; its digest and its length."""
        self._notes.add(tar.END)
        self._notes.close()
        self._write(tar.END)
        self._flush()
        return f"sha256:{self._digest.hexdigest()}", self._size

    def outline(self) -> str:
        """The outline of what was added; "" where nobody asked for it, or it cannot be told."""
        return self._outline.finish() if self._outline else ""


def _content(descriptor: int, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes: what is missing of a file that becomes shorter is zeros."""
    while size:
        piece = os.read(descriptor, min(size, _PIECE)) or bytes(min(size, _PIECE))
        size -= len(piece)
        yield piece
