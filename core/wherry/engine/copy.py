"""`cp`: files between the host and a container, with docker's rules."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import sys

from wherry.container.archive import open_below, pack, unpack
from wherry.engine.piping import piped
from wherry.errors import KernelError, NotFound, UsageError, WherryError
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, BinaryIO

    from wherry.engine.container_files import ContainerFiles

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_LINKS = 40


# ---- docker's rules: where a copy goes, and what it is called there ----


@value
class Source:
    """What is copied: the directory it is in, its name there, and what it is."""

    parent: str
    # "." for the contents of `parent`.
    name: str
    is_dir: bool
    # What it is called in the copy, unless the destination says otherwise.
    called: str


@value
class Destination:
    """Where a copy goes, as it was given, and what is there."""

    path: str
    exists: bool
    is_dir: bool


def place(source: Source, destination: Destination, split: Any = posixpath) -> tuple[str, str]:
    """The directory that a copy is put into, and what it is called there ("." for its contents).

    `split` is the path module of the system that the destination is on.
    """
    if destination.exists and destination.is_dir:
        return destination.path, source.called
    if destination.exists and source.is_dir:
        raise UsageError("cannot copy directory", hint=f"{destination.path} is a file")
    if not destination.exists and not source.is_dir and asserts_directory(destination.path):
        raise NotFound(f"no such directory: {destination.path}")
    bare = split.normpath(destination.path)
    return split.dirname(bare) or ".", split.basename(bare)


def asserts_directory(path: str) -> bool:
    """Whether a path says of itself that it is a directory: `x/`, `x/.`."""
    return path.endswith("/") or posixpath.basename(path) == "."


def split_source(path: str) -> tuple[str, str, str]:
    """The parent, the name in it, and what the copy is called.

    A trailing `/.` means the contents; a trailing `/` goes through a symbolic link.
    """
    bare = posixpath.normpath("/" + path.lstrip("/"))
    if bare == "/" or posixpath.basename(path) == ".":
        return bare, ".", "."
    if path.endswith("/"):
        return bare, ".", posixpath.basename(bare)
    return posixpath.dirname(bare), posixpath.basename(bare), posixpath.basename(bare)


# ---- a container's files ----


class Files:
    """The files of one container, wherever it is."""

    name: str

    def stat(self, path: str) -> dict[str, Any]:
        """What is at `path`, itself and not what it links to. Raises NotFound.

        name, size, mode (stat(2)'s), mtime (seconds), linkTarget (absolute, "" for none).
        """
        raise NotImplementedError

    def read(self, source: Source, called: str, writer: int) -> None:
        """Write `source` as a tar stream to a descriptor, as `called` in it; closes nothing."""
        raise NotImplementedError

    def write(self, path: str, reader: int, *, keep_ids: bool) -> None:
        """Unpack the tar stream of a descriptor in the directory `path`."""
        raise NotImplementedError

    def follow(self, path: str) -> tuple[str, dict[str, Any] | None]:
        """Where `path` leads through symbolic links, and what is there (None for nothing)."""
        for _ in range(_LINKS):
            try:
                found = self.stat(path)
            except NotFound:
                return path, None
            if not found["linkTarget"]:
                return path, found
            path = found["linkTarget"]
        raise UsageError(f"too many symbolic links: {path}")


# ---- the three kinds of `cp` ----


def copy_out(files: Files, path: str, target: str, *, keep_ids: bool, follow: bool) -> int:
    """`cp CONTAINER:PATH TARGET`; the bytes that were carried."""
    source = _container_source(files, path, follow=follow)
    destination = _local_destination(target)
    directory, called = place(source, destination, os.path)
    if not os.path.isdir(directory):
        raise NotFound(f'invalid output path: directory "{directory}" does not exist')

    def receive(reader: int) -> int:
        with open(reader, "rb", closefd=False) as stream:
            counted = _Counted(stream)
            unpack_here(counted, directory, keep_ids=keep_ids, keep_rights=keep_ids)  # type: ignore[arg-type]
        return counted.size

    return piped(lambda writer: files.read(source, called, writer), receive)


def copy_in(files: Files, source_path: str, target: str, *, keep_ids: bool, follow: bool) -> int:
    """`cp SOURCE CONTAINER:TARGET`; the bytes that were carried."""
    source = _local_source(source_path, follow=follow)
    destination = _container_destination(files, target)
    directory, called = place(source, destination)

    def send(writer: int) -> None:
        try:
            with open(writer, "wb", closefd=False) as out:
                _pack_here(source, out, called)
        except OSError as error:
            raise WherryError(f"cannot read {source_path}: {error.strerror}") from error

    def receive(reader: int) -> int:
        files.write(directory, reader, keep_ids=keep_ids)
        return 0

    piped(send, receive, local_first=True)
    return _tree_bytes(source)


def _pack_here(source: Source, out: BinaryIO, called: str) -> None:
    """Write files of this system as a tar stream."""
    if sys.platform == "win32":
        from wherry.container import archive_by_path

        archive_by_path.pack(source.parent, source.name, out, called)
        return
    top = os.open(source.parent, _DIRECTORY)
    try:
        pack(top, source.name, out, called)
    finally:
        os.close(top)


def unpack_here(
    stream: BinaryIO, directory: str, *, keep_ids: bool = False, keep_rights: bool = False
) -> None:
    """Make files of this system from a tar stream, below a directory; see unpack."""
    if sys.platform == "win32":
        from wherry.container import archive_by_path

        archive_by_path.unpack(stream, directory)
        return
    top = os.open(directory, _DIRECTORY)
    try:
        left_out = unpack(
            stream,
            lambda below: open_below(top, below),
            keep_ids=keep_ids,
            keep_rights=keep_rights,
        )
    finally:
        os.close(top)
    _warn(left_out)


def _warn(left_out: Sequence[str]) -> None:
    from wherry.harmless import warn

    for path in left_out:
        warn(f"{path} is left out: it is a device, which only cp --archive makes on the host")


def copy_from_stream(files: Files, target: str, reader: int) -> None:
    """`cp - CONTAINER:TARGET`: a tar stream into a directory that is there."""
    destination = _container_destination(files, target)
    if not destination.is_dir:
        raise UsageError(f'destination "{files.name}:{target}" must be a directory')
    files.write(destination.path, reader, keep_ids=True)


def copy_to_stream(files: Files, path: str, writer: int, *, follow: bool) -> None:
    """`cp CONTAINER:PATH -`: a tar stream."""
    source = _container_source(files, path, follow=follow)
    streamed(lambda: files.read(source, source.called, writer))


def export_to_stream(files: ContainerFiles, writer: int) -> None:
    """`export`: a container's own files as a tar stream."""
    streamed(lambda: files.export(writer))


def streamed(write: Callable[[], None]) -> None:
    """`write()` to a stream whose reader may have seen enough."""
    try:
        write()
    except KernelError as error:
        if error.errno == errno.EPIPE:
            raise BrokenPipeError(errno.EPIPE, error.message) from error
        raise


def _container_source(files: Files, path: str, *, follow: bool) -> Source:
    found = files.stat(path)
    called = split_source(path)[2]
    if follow and found["linkTarget"]:
        path, there = files.follow(path)
        if there is None:
            raise NotFound(f"Could not find the file {path} in container {files.name}")
        found = there
    parent, name, _ = split_source(path)
    return Source(parent=parent, name=name, is_dir=stat.S_ISDIR(found["mode"]), called=called)


def _container_destination(files: Files, path: str) -> Destination:
    asked = posixpath.join("/", path)
    where, found = files.follow(posixpath.normpath(asked))
    if found is None:
        # What is said by the end of the path holds for where a link leads, too.
        ending = "/" if asserts_directory(asked) else ""
        return Destination(path=where + ending, exists=False, is_dir=False)
    if not stat.S_ISDIR(found["mode"]):
        if asserts_directory(asked):
            raise UsageError(f"not a directory: {path}")
        if not stat.S_ISREG(found["mode"]):
            raise UsageError(f"destination {path} is neither a file nor a directory")
    return Destination(path=where, exists=True, is_dir=stat.S_ISDIR(found["mode"]))


def _local_source(path: str, *, follow: bool) -> Source:
    full = os.path.abspath(path)
    ends = asserts_directory(path.replace(os.sep, "/"))
    try:
        found = os.stat(path, follow_symlinks=follow or ends)
    except OSError as error:
        raise NotFound(f"lstat {full}: {(error.strerror or '').lower()}") from error
    is_dir = stat.S_ISDIR(found.st_mode)
    called = "." if os.path.basename(path) == "." or full == "/" else os.path.basename(full)
    if is_dir:
        return Source(parent=os.path.realpath(full), name=".", is_dir=True, called=called)
    if follow:
        real = os.path.realpath(full)
        return Source(
            parent=os.path.dirname(real), name=os.path.basename(real), is_dir=False, called=called
        )
    return Source(
        parent=os.path.realpath(os.path.dirname(full)),
        name=os.path.basename(full),
        is_dir=False,
        called=called,
    )


def _local_destination(path: str) -> Destination:
    real = os.path.realpath(path)
    exists = os.path.lexists(real)
    is_dir = os.path.isdir(real)
    if exists and not is_dir:
        if asserts_directory(path.replace(os.sep, "/")):
            raise UsageError(f"not a directory: {path}")
        if not os.path.isfile(real):
            raise UsageError(f"destination {path} is neither a file nor a directory")
    if not exists and asserts_directory(path.replace(os.sep, "/")):
        real += "/"
    return Destination(path=real, exists=exists, is_dir=is_dir)


def _tree_bytes(source: Source) -> int:
    from wherry.container.copy import tree_size

    path = os.path.join(source.parent, source.name)
    try:
        return tree_size(path) if source.is_dir else os.lstat(path).st_size
    except OSError:
        return 0


class _Counted:
    """A stream that knows how much was read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        content = self.stream.read(size)
        self.size += len(content)
        return content
