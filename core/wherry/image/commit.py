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
from wherry.container.archive import attributes
from wherry.container.copy import copied, remove_tree
from wherry.errors import Unsupported, UsageError, WherryError
from wherry.files import make_dir, storage_error, write_all
from wherry.forked import answer_of, report
from wherry.image import tar
from wherry.image.assembly import LAYER
from wherry.image.difference import DELETED
from wherry.image.layers import publish
from wherry.image.streams import STREAM, StreamNotes
from wherry.image.tar import Member
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from wherry.image.difference import Change
    from wherry.oci.image_spec import Descriptor

_HANDLE = getattr(os, "O_PATH", 0) | getattr(os, "O_NOFOLLOW", 0)
_PIECE = 1 << 20
# From here on the content of a file is copied by itself.
_LARGE = 1 << 20
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@value
class PackedLayer:
    """A layer that was made."""

    descriptor: Descriptor
    diff_id: str
    # How many files, directories and removals it has.
    count: int
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def make_layer(
    changes: Callable[[], Iterable[Change]], *, latest: int | None = None
) -> PackedLayer:
    """Make the layer of changes, walked `as_layer`: its files, its digest, but no blob.

    What is younger than `latest` (nanoseconds) gets that time.

    Both are done at once, by two processes: taking a digest and making files take about as
    long as each other. Runs where container ids are our own, within `ImageStore.held()`.
    """
    draft = make_dir(f"{paths.layers()}/sha256/commit.{os.getpid()}.tmp", 0o711)
    try:
        try:
            return _make(changes(), draft, latest, {})
        except _Repeated as repeated:
            remove_tree(draft)
            make_dir(draft, 0o711)
            return _make(changes(), draft, latest, repeated.paths)
    except BrokenPipeError:
        raise WherryError("the process that unpacks the layer was killed") from None
    except OSError as error:
        raise storage_error(error, "write the layer") from error
    finally:
        remove_tree(draft)


def _make(
    changes: Iterable[Change], draft: str, latest: int | None, repeated: dict[str, int]
) -> PackedLayer:
    os.mkdir(f"{draft}/diff", 0o755)
    os.mkdir(f"{draft}/aside", 0o700)
    with _Unpacking(draft) as unpacking:
        stream = _Stream(draft, unpacking.write)
        packer = _Packer(stream, latest, repeated)
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
    )


class _Repeated(Exception):
    """Several files have come to one path, so often each: only the last of them counts."""

    def __init__(self, paths: dict[str, int]) -> None:
        self.paths = paths


class _Unpacking:
    """A forked process that unpacks the tar stream that is written to it."""

    def __init__(self, draft: str) -> None:
        self._draft = draft
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
            report(outcome, lambda: self._unpack(reader))
        os.close(reader)
        os.close(outcome)
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
            answer_of(self._outcome)
            raise

    def finish(self) -> int:
        """End the stream, and wait until all of it is unpacked; the bytes of its files."""
        os.close(self._stream)
        self._stream = -1
        return int(answer_of(self._outcome))

    def __exit__(self, *_: object) -> None:
        if self._stream >= 0:
            os.close(self._stream)
        os.close(self._outcome)
        os.waitpid(self._child, 0)


class _Stream:
    """The tar stream of a layer: taken down, digested, and told to who unpacks it.

    Nobody is told what large files hold: that is copied beside, where it is taken from.
    """

    def __init__(self, draft: str, tell: Callable[[bytes], None]) -> None:
        self._tell = tell
        self._aside = f"{draft}/aside"
        self._count = 0
        self._notes = StreamNotes(f"{draft}/{STREAM}")
        self._digest = sha256()
        self._size = 0
        self._waiting: list[bytes] = []
        self._waiting_size = 0

    def add(self, member: Member, descriptor: int = -1) -> None:
        """Append a member; `descriptor` has the content of a file."""
        header, size = tar.header_of(member), member.size
        padding = bytes(-size % tar.BLOCK)
        self._notes.add(header, member.name, size)
        if size >= _LARGE:
            self._flush()
            self._take(header)
            self._copy(descriptor, size)
            self._take(padding)
            # Now it is there to be taken.
            self._tell(header)
            return
        self._write(header)
        if size:
            for piece in _content(descriptor, size):
                self._write(piece)
            self._write(padding)

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


class _Packer:
    """Changes as the members of a tar stream."""

    def __init__(self, stream: _Stream, latest: int | None, repeated: dict[str, int]) -> None:
        """`repeated`: how many files come to a path, where that is more than one."""
        self.count = 0
        self.warnings: list[str] = []
        self._stream = stream
        self._latest = latest
        self._linked: dict[tuple[int, int], str] = {}
        # How many are still to come; only the last one stays.
        self._left = dict(repeated)
        # How many files have come to each path; 0 for a directory.
        self._met: dict[str, int] = {}

    def pack(self, changes: Iterable[Change]) -> None:
        """Raises _Repeated, when all changes are known."""
        is_single = True
        for change in changes:
            if change.path.rpartition("/")[2].startswith(_WHITEOUT):
                self.warnings.append(f"/{change.path} is left out: a layer has no such names")
            elif self._left.get(change.path, 1) > 1:
                self._left[change.path] -= 1
            else:
                is_single &= self._is_first(change)
                if is_single:
                    self.count += 1
                    self._add(change)
        if not is_single:
            raise _Repeated({path: count for path, count in self._met.items() if count > 1})

    def _is_first(self, change: Change) -> bool:
        """Whether no other file has come to this path. Raises UsageError for a directory."""
        before = self._met.get(change.path)
        is_directory = change.found is not None and stat.S_ISDIR(change.found.st_mode)
        if before is not None and is_directory != (before == 0):
            what = "non-directory" if is_directory else "directory"
            raise UsageError(f"cannot copy to {what}: /{change.path}")
        self._met[change.path] = 0 if is_directory else (before or 0) + 1
        return is_directory or not before

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
        self._stream.add(Member(directory + slash + name, mode=0))

    def _directory(self, change: Change, found: os.stat_result) -> None:
        member = self._describe(change.path or ".", tar.DIRECTORY, found)
        member.xattrs = _attributes(change.parent)
        self._stream.add(member)
        if change.opaque:
            self._mark(f"{change.path}/", _OPAQUE)

    def _file(self, change: Change, found: os.stat_result) -> None:
        key = (found.st_dev, found.st_ino)
        first = self._linked.get(key)
        if first is not None:
            member = self._describe(change.path, tar.HARD_LINK, found)
            member.linkname = first
            self._stream.add(member)
            return
        descriptor = _open_file(change)
        if descriptor < 0:
            return
        try:
            member = self._describe(change.path, tar.FILE, found)
            member.size = os.fstat(descriptor).st_size
            member.xattrs = _attributes(descriptor)
            self._stream.add(member, descriptor)
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
        self._stream.add(member)


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
        return attributes(descriptor)
    except OSError:
        return {}
