"""`cp`: files between the host and a container, with docker's rules.

A running container's files are reached through a descriptor of its root directory, in
its user namespace, but from our own mount namespace: every path is resolved by the
kernel with that directory as the root, so that no link of the container's, and no race
with one, leads to a file of the host, and nothing of the container's is loaded. The
tree of a stopped one, with its volumes, is mounted for the moment where only we see it.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import sys

from wherry.container.archive import open_below, pack, unpack
from wherry.engine import idmaps
from wherry.engine.mounts import layer_of, lower_directories, oci_mounts
from wherry.errors import (
    Conflict,
    CorruptState,
    KernelError,
    NotFound,
    UsageError,
    WherryError,
    as_ours,
    from_json,
    to_json,
)
from wherry.lean import dump_json, load_json
from wherry.values import value
from wherry.volume.store import VolumeStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO, TypeVar

    from wherry.container.store import Container
    from wherry.oci.runtime_spec import Mount
    from wherry.runtime import Runtime

    T = TypeVar("T")

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
_LIVE = ("running", "paused")
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


class ContainerFiles(Files):
    """Those of a container that is here, running or not."""

    def __init__(self, container: Container, runtime: Runtime) -> None:
        self.container = container
        self.name = container.name
        self.runtime = runtime

    def within(self, function: Callable[[int], T]) -> T:
        """`function()` of a descriptor of the root directory, with the container's ids.

        The result crosses between processes as JSON.
        """
        container = self.container
        answer: T
        if container.reload()["Status"] not in _LIVE:
            with container.lock():
                if container.reload()["Status"] not in _LIVE:
                    answer = self._unshared(lambda: self._mounted(function))
                    return answer
        answer = self.runtime.in_container(container, function)
        return answer

    def _unshared(self, function: Callable[[], T]) -> T:
        """`function()` with the container's ids, in a mount namespace that ends with it."""
        shift = idmaps.shifted_maps(self.container)
        maps = None if shift is None else shift[0]
        answer: T = self.runtime.unshared(function, mounts=True, maps=maps)
        return answer

    def _mounted(self, function: Callable[[int], T]) -> T:
        container = self.container
        rootfs = (container.body.get("Wherry") or {}).get("Rootfs")
        target = rootfs or container.path("root")
        if not rootfs:
            lower = lower_directories(container)
            self.runtime.mount_overlay(
                lower, container.path("upper"), container.path("work"), target
            )
        root = os.open(target, _DIRECTORY)
        try:
            for mount in self._mounts():
                self.runtime.mount_into(root, mount)
            return function(root)
        finally:
            os.close(root)

    def _mounts(self) -> list[Mount]:
        """Volumes, binds and the files that the last run was given."""
        container = self.container
        volumes = VolumeStore(unshared=self.runtime.unshared)
        mounts = oci_mounts(
            container.record["Mounts"],
            directory=container.directory,
            volumes=volumes,
            layer_path=lambda diff_id: layer_of(container, diff_id),
            ids=(idmaps.own_maps(container), True),
        )
        taken = {mount["destination"] for mount in mounts}
        for name in ("hosts", "hostname", "resolv.conf"):
            source = container.path(name)
            if f"/etc/{name}" not in taken and os.path.exists(source):
                mounts.append(
                    {
                        "destination": f"/etc/{name}",
                        "type": "bind",
                        "source": source,
                        "options": ["rbind", "rprivate"],
                    }
                )
        return sorted(mounts, key=lambda mount: mount["destination"].count("/"))

    # ---- looking ----

    def stat(self, path: str) -> dict[str, Any]:
        parent, name, called = split_source(path)

        def look(root: int) -> dict[str, Any]:
            directory = self._open(root, parent, path)
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                link = ""
                if stat.S_ISLNK(found.st_mode):
                    link = posixpath.join(parent, os.readlink(name, dir_fd=directory))
                return {
                    "name": called if called != "." else posixpath.basename(parent) or "/",
                    "size": found.st_size,
                    "mode": found.st_mode,
                    "mtime": found.st_mtime,
                    "linkTarget": posixpath.normpath(link) if link else "",
                }
            except OSError as error:
                raise self._missing(path, error) from error
            finally:
                os.close(directory)

        return self.within(look)

    def _open(self, root: int, directory: str, path: str) -> int:
        try:
            return self.runtime.open_in_root(root, directory, flags=_DIRECTORY)
        except KernelError as error:
            raise self._missing(path, error) from error

    def _missing(self, path: str, error: OSError | KernelError) -> WherryError:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return NotFound(f"Could not find the file {path} in container {self.container.name}")
        return WherryError(
            f"cannot open {path} in container {self.container.name}:"
            f" {os.strerror(error.errno or 0)}"
        )

    # ---- reading and writing ----

    def read(self, source: Source, called: str, writer: int) -> None:
        def read(root: int) -> None:
            directory = self._open(root, source.parent, source.parent)
            try:
                with open(writer, "wb", buffering=1 << 16, closefd=False) as out:
                    pack(directory, source.name, out, called)
            except BrokenPipeError as error:
                raise KernelError("nobody reads the archive", errno.EPIPE) from error
            except OSError as error:
                raise WherryError(
                    f"cannot read {posixpath.join(source.parent, source.name)} in container"
                    f" {self.container.name}: {error.strerror}"
                ) from error
            finally:
                os.close(directory)

        self.within(read)
        self.container.event("archive-path")

    def export(self, writer: int) -> None:
        """Write the container's own files, without what is mounted in it, as a tar stream.

        They are read from its layers: a running container's mounts are not seen there.
        """
        container = self.container

        def read() -> None:
            target = (container.body.get("Wherry") or {}).get("Rootfs")
            if not target:
                target = container.path("root")
                layers = [container.path("upper"), *lower_directories(container)]
                self.runtime.mount_overlay(layers, "", "", target)
            root = os.open(target, _DIRECTORY)
            try:
                with open(writer, "wb", buffering=1 << 16, closefd=False) as out:
                    pack(root, ".", out, ".")
            except BrokenPipeError as error:
                raise KernelError("nobody reads the archive", errno.EPIPE) from error
            except OSError as error:
                raise WherryError(
                    f"cannot export container {container.name}: {error.strerror}"
                ) from error
            finally:
                os.close(root)

        self._unshared(read)
        container.event("export")

    def write(self, path: str, reader: int, *, keep_ids: bool) -> None:
        self._check_writable(path)

        def write(root: int) -> None:
            os.close(self._open(root, path, path))

            def open_directory(below: str) -> int:
                return self.runtime.open_in_root(
                    root, posixpath.join(path, below), create="directory", flags=_DIRECTORY
                )

            with open(reader, "rb", closefd=False) as source:
                unpack(source, open_directory, keep_ids=keep_ids)

        try:
            self.within(write)
            self.container.event("extract-to-dir")
        except KernelError as error:
            raise WherryError(
                f"cannot write to {path} in container {self.container.name}:"
                f" {os.strerror(error.errno)}"
            ) from error

    def _check_writable(self, path: str) -> None:
        """Refuse in docker's words what the kernel would refuse anyway."""
        here = posixpath.normpath("/" + path.lstrip("/"))
        host = self.container.body["HostConfig"]
        over = [
            point
            for point in self.container.record["Mounts"]
            if f"{here}/".startswith(f"{point['Destination'].rstrip('/')}/")
        ]
        if over:
            nearest = max(over, key=lambda point: len(point["Destination"]))
            if not nearest["RW"]:
                raise Conflict("mounted volume is marked read-only")
            return
        tmpfs = [posixpath.normpath(target) for target in host.get("Tmpfs") or ()]
        if host.get("ReadonlyRootfs") and not any(
            f"{here}/".startswith(f"{target}/") for target in tmpfs
        ):
            raise Conflict("container rootfs is marked read-only")


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
        unpack(
            stream,
            lambda below: open_below(top, below),
            keep_ids=keep_ids,
            keep_rights=keep_rights,
        )
    finally:
        os.close(top)


def copy_from_stream(files: Files, target: str, reader: int) -> None:
    """`cp - CONTAINER:TARGET`: a tar stream into a directory that is there."""
    destination = _container_destination(files, target)
    if not destination.is_dir:
        raise UsageError(f'destination "{files.name}:{target}" must be a directory')
    files.write(destination.path, reader, keep_ids=True)


def copy_to_stream(files: Files, path: str, writer: int, *, follow: bool) -> None:
    """`cp CONTAINER:PATH -`: a tar stream."""
    source = _container_source(files, path, follow=follow)
    _streamed(lambda: files.read(source, source.called, writer))


def export(files: ContainerFiles, writer: int) -> None:
    """`export`: a container's own files as a tar stream."""
    _streamed(lambda: files.export(writer))


def _streamed(write: Callable[[], None]) -> None:
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


# ---- two processes and a pipe ----


def piped(
    produce: Callable[[int], None], consume: Callable[[int], T], *, local_first: bool = False
) -> T:
    """`consume()` what a forked child `produce()`s; raises what either of them did.

    Where nothing forks it is a thread that deals with the files of this system: those that
    are produced, with `local_first`.
    """
    if sys.platform == "win32":
        return _threaded(produce, consume, local_first=local_first)
    reader, writer = os.pipe()
    failure_reader, failure_writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.close(failure_reader)
        _produce(produce, writer, failure_writer)
    os.close(writer)
    os.close(failure_writer)
    failed: BaseException | None = None
    try:
        result = consume(reader)
    except (OSError, WherryError) as error:
        failed = error
    finally:
        os.close(reader)
        report = b"".join(iter(lambda: os.read(failure_reader, 65536), b""))
        os.close(failure_reader)
        os.waitpid(child, 0)
    # Where one end fails the other does too: on a broken pipe, or an archive without an end.
    if report and (failed is None or isinstance(failed, CorruptState)):
        raise from_json(load_json(report))
    if failed is not None:
        raise failed
    return result


def _threaded(
    produce: Callable[[int], None], consume: Callable[[int], T], *, local_first: bool
) -> T:
    """The same in two threads of this process."""
    import threading

    reader, writer = os.pipe()
    results: list[T] = []
    # In the order in which they are told: where one end fails the other does too.
    failures: dict[str, BaseException] = {}

    def run(end: str) -> None:
        descriptor = writer if end == "produce" else reader
        try:
            if end == "produce":
                produce(writer)
            else:
                results.append(consume(reader))
        except BaseException as error:
            failures[end] = error
        finally:
            os.close(descriptor)

    thread = threading.Thread(target=run, args=("produce" if local_first else "consume",))
    thread.start()
    run("consume" if local_first else "produce")
    thread.join()
    consumed, produced = failures.get("consume"), failures.get("produce")
    if produced is not None and (consumed is None or isinstance(consumed, CorruptState)):
        raise produced
    if consumed is not None:
        raise consumed
    return results[0]


def _produce(produce: Callable[[int], None], writer: int, failure: int) -> None:
    """The child; never returns."""
    try:
        produce(writer)
    except WherryError as error:
        os.write(failure, dump_json(to_json(error)).encode())
    except BaseException as error:
        os.write(failure, dump_json(to_json(as_ours(error))).encode())
    finally:
        os._exit(0)


class _Counted:
    """A stream that knows how much was read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        content = self.stream.read(size)
        self.size += len(content)
        return content
