"""A container's changes become a layer, as image-spec's "Layer Filesystem Changeset" has it.

The same changes make the same bytes: names are sorted, and nothing is written but what
the files are. Times keep their nanoseconds, so that what `make` has built is still built.
"""

from __future__ import annotations

import os
import stat
import sys
from hashlib import sha256

from wherry import paths
from wherry.container.copy import remove_tree
from wherry.errors import Unsupported, WherryError, as_ours, from_json, to_json
from wherry.files import make_dir, storage_error
from wherry.image import tar
from wherry.image.assembly import GZIP_LAYER
from wherry.image.difference import DELETED
from wherry.image.gzip import GzipWriter
from wherry.image.layers import publish
from wherry.image.tar import Member, TarWriter
from wherry.lean import dump_json, load_json
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from wherry.image.difference import Change
    from wherry.oci.image_spec import Descriptor

_HANDLE = getattr(os, "O_PATH", 0) | getattr(os, "O_NOFOLLOW", 0)
_PIECE = 1 << 20
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_OVERLAY = "user.overlay."
_CAPABILITY = "security.capability"


@value
class PackedLayer:
    """A layer in a file."""

    descriptor: Descriptor
    diff_id: str
    # How many files, directories and removals it has.
    count: int
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def make_layer(changes: Iterable[Change], path: str, *, latest: int | None = None) -> PackedLayer:
    """Write changes, walked `as_layer`, to a new file as a compressed layer; unpack it as well.

    What is younger than `latest` (nanoseconds) gets that time.

    Both are done at once, by two processes: compressing and making files take about as
    long as each other. Runs where container ids are our own, within `ImageStore.held()`.
    """
    draft = make_dir(f"{paths.layers()}/sha256/commit.{os.getpid()}.tmp", 0o711)
    try:
        os.mkdir(f"{draft}/diff", 0o755)
        with _Unpacking(f"{draft}/diff") as unpacking:
            packed = _pack(changes, path, unpacking.write, latest)
            size = unpacking.finish()
        if packed.count:
            publish(draft, packed.diff_id, size)
    except BrokenPipeError:
        raise WherryError("the process that unpacks the layer was killed") from None
    except OSError as error:
        raise storage_error(error, "write the layer") from error
    finally:
        remove_tree(draft)
    return packed


def _pack(
    changes: Iterable[Change], path: str, copy: Callable[[bytes], None], latest: int | None
) -> PackedLayer:
    with _Layer(path, copy) as layer:
        packer = _Packer(layer.write, latest)
        packer.pack(changes)
        return layer.finish(packer)


class _Unpacking:
    """A forked process that unpacks the tar stream that is written to it."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._stream = self._outcome = -1
        self._child = 0

    def __enter__(self) -> _Unpacking:
        if sys.platform == "win32":
            raise Unsupported("containers are on Linux only")
        reader, self._stream = os.pipe()
        self._outcome, outcome = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            os.close(self._stream)
            os.close(self._outcome)
            self._serve(reader, outcome)
        os.close(reader)
        os.close(outcome)
        return self

    def _serve(self, reader: int, outcome: int) -> None:
        """The child; never returns."""
        answer: dict[str, Any] = {}
        try:
            if sys.platform == "linux":
                from wherry.image.unpack import Unpacker

                unpacker = Unpacker(self._directory)
                answer = {"size": unpacker.unpack(lambda size: os.read(reader, size))}
        except WherryError as error:
            answer = {"error": to_json(error)}
        except BaseException as error:
            answer = {"error": to_json(as_ours(error))}
        try:
            os.write(outcome, dump_json(answer).encode())
        finally:
            os._exit(0)

    def write(self, data: bytes) -> None:
        """Raises what went wrong in the process, if it has ended."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._stream, view) :]
        except BrokenPipeError:
            self._answer()
            raise

    def finish(self) -> int:
        """End the stream, and wait until all of it is unpacked; the bytes of its files."""
        os.close(self._stream)
        self._stream = -1
        return int(self._answer()["size"])

    def _answer(self) -> dict[str, Any]:
        content = b"".join(iter(lambda: os.read(self._outcome, 65536), b""))
        if not content:
            raise BrokenPipeError
        answer: dict[str, Any] = load_json(content)
        if "error" in answer:
            raise from_json(answer["error"])
        return answer

    def __exit__(self, *_: object) -> None:
        if self._stream >= 0:
            os.close(self._stream)
        os.close(self._outcome)
        os.waitpid(self._child, 0)


class _Layer:
    """A gzip file, and the digests of what it is and of what it holds."""

    def __init__(self, path: str, copy: Callable[[bytes], None]) -> None:
        """`copy` gets what the layer holds, before it is compressed."""
        self._copy = copy
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by __exit__
        self._gzip = GzipWriter()
        self._inner = sha256()
        self._outer = sha256()
        self._size = 0
        self._waiting: list[bytes] = []
        self._waiting_size = 0

    def __enter__(self) -> _Layer:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        # Headers are small, and a call for each would cost more than its work.
        self._waiting.append(data)
        self._waiting_size += len(data)
        if self._waiting_size >= _PIECE:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._waiting)
        self._waiting, self._waiting_size = [], 0
        self._copy(data)
        self._inner.update(data)
        self._put(self._gzip.piece(data))

    def _put(self, data: bytes) -> None:
        self._outer.update(data)
        self._size += len(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def finish(self, packer: _Packer) -> PackedLayer:
        self._flush()
        self._put(self._gzip.end())
        return PackedLayer(
            descriptor={
                "mediaType": GZIP_LAYER,
                "digest": f"sha256:{self._outer.hexdigest()}",
                "size": self._size,
            },
            diff_id=f"sha256:{self._inner.hexdigest()}",
            count=packer.count,
            warnings=packer.warnings,
        )


class _Packer:
    """Changes as the members of a tar stream."""

    def __init__(self, write: Callable[[bytes], object], latest: int | None) -> None:
        self.count = 0
        self.warnings: list[str] = []
        self._archive = TarWriter(write)
        self._latest = latest
        self._linked: dict[tuple[int, int], str] = {}

    def pack(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.path.rpartition("/")[2].startswith(_WHITEOUT):
                self.warnings.append(f"/{change.path} is left out: a layer has no such names")
                continue
            self.count += 1
            self._add(change)
        self._archive.close()

    def _add(self, change: Change) -> None:
        found = change.found
        if change.kind == DELETED or found is None:
            self._mark(change.path, _WHITEOUT + change.name)
        elif stat.S_ISDIR(found.st_mode):
            self._directory(change, found)
        elif stat.S_ISREG(found.st_mode):
            self._file(change, found)
        else:
            self._special(change, found)

    def _mark(self, path: str, name: str) -> None:
        directory, slash, _ = path.rpartition("/")
        self._archive.add(Member(directory + slash + name, mode=0))

    def _directory(self, change: Change, found: os.stat_result) -> None:
        member = self._describe(change.path or ".", tar.DIRECTORY, found)
        member.xattrs = _attributes(change.parent)
        self._archive.add(member)
        if change.opaque:
            self._mark(f"{change.path}/", _OPAQUE)

    def _file(self, change: Change, found: os.stat_result) -> None:
        key = (found.st_dev, found.st_ino)
        first = self._linked.get(key)
        if first is not None:
            member = self._describe(change.path, tar.HARD_LINK, found)
            member.linkname = first
            self._archive.add(member)
            return
        descriptor = _open_file(change)
        if descriptor < 0:
            return
        try:
            member = self._describe(change.path, tar.FILE, found)
            member.size = os.fstat(descriptor).st_size
            member.xattrs = _attributes(descriptor)
            self._archive.add(member, _content(descriptor, member.size))
        finally:
            os.close(descriptor)
        if found.st_nlink > 1:
            self._linked[key] = change.path

    def _describe(self, path: str, kind: str, found: os.stat_result) -> Member:
        mtime = found.st_mtime_ns
        return Member(
            path,
            kind,
            mode=stat.S_IMODE(found.st_mode),
            uid=found.st_uid,
            gid=found.st_gid,
            mtime_ns=mtime if self._latest is None else min(mtime, self._latest),
        )

    def _special(self, change: Change, found: os.stat_result) -> None:
        if sys.platform == "win32":
            raise Unsupported("overlayfs is on Linux only")
        if stat.S_ISLNK(found.st_mode):
            member = self._describe(change.path, tar.SYMLINK, found)
            member.linkname = os.readlink(change.name, dir_fd=change.parent)
        elif stat.S_ISFIFO(found.st_mode):
            member = self._describe(change.path, tar.FIFO, found)
        else:
            is_block = stat.S_ISBLK(found.st_mode)
            member = self._describe(
                change.path, tar.BLOCK_DEVICE if is_block else tar.CHARACTER, found
            )
            member.major, member.minor = os.major(found.st_rdev), os.minor(found.st_rdev)
        self._archive.add(member)


def _open_file(change: Change) -> int:
    """A descriptor of a file's content; -1 if it is no file any more.

    Opening a device could do something to it: what it is is looked at before.
    """
    handle = os.open(change.name, _HANDLE, dir_fd=change.parent)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return -1
        return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY)
    finally:
        os.close(handle)


def _content(descriptor: int, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes: what is missing of a file that becomes shorter is zeros."""
    while size:
        piece = os.read(descriptor, min(size, _PIECE)) or bytes(min(size, _PIECE))
        size -= len(piece)
        yield piece


def _attributes(descriptor: int) -> dict[str, bytes]:
    """What travels with a file: its user's notes and its capabilities."""
    if sys.platform != "linux":
        raise Unsupported("overlayfs is on Linux only")
    try:
        return {
            name: os.getxattr(descriptor, name)
            for name in os.listxattr(descriptor)
            if name == _CAPABILITY or (name.startswith("user.") and not name.startswith(_OVERLAY))
        }
    except OSError:
        return {}
