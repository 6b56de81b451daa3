"""Atomic writes and locks: the two things crash-only state is made of."""

from __future__ import annotations

import errno
import os
import stat
import sys

from wherry import paths
from wherry.errors import (
    AccessDenied,
    Conflict,
    CorruptState,
    NotFound,
    UsageError,
    WherryError,
)
from wherry.lean import dump_json, load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any, TypeVar

    T = TypeVar("T")


_LARGEST_RECORD = 64 << 20


def make_dir(path: str, mode: int = 0o700) -> str:
    """Make `path` and what is missing above it, private to this user."""
    try:
        _make_one(path, mode)
    except FileNotFoundError:
        make_dir(os.path.dirname(path), mode)
        try:
            _make_one(path, mode)
        except OSError as error:  # as in /proc, where nobody makes anything
            raise storage_error(error, f"make {path}") from error
    except OSError as error:
        raise storage_error(error, f"make {path}") from error
    return path


def _make_one(path: str, mode: int) -> None:
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    if mode != 0o700:
        os.chmod(path, mode)  # the caller's umask is not asked


def claim_directory(path: str) -> None:
    """Make `path` a directory that only this user can enter. Raises where it is another's.

    Whoever can enter may run what containers have written, setuid programs among it; whoever
    owns it may put other files in the place of ours.
    """
    make_dir(path)
    if sys.platform == "win32":
        return
    if not os.path.isdir(path):
        raise WherryError(f"{path} is not a directory", hint="WHERRY_ROOT names another place")
    # A link to another place is as good as the directory if it is our own.
    for status in (os.lstat(path), os.stat(path)):
        if status.st_uid != os.geteuid():
            raise AccessDenied(
                f"{path} belongs to user {status.st_uid}, not to user {os.geteuid()}",
                hint="WHERRY_ROOT names another place; a directory in /tmp can be removed",
            )
    if status.st_mode & 0o077:
        os.chmod(path, 0o700)
    for way in {os.path.abspath(path), os.path.realpath(path)}:
        _check_way(way)


def _check_way(path: str) -> None:
    """Refuse a place that others could change the way to. Raises AccessDenied.

    Anybody may have made what lies in a directory like /tmp, and in one without the sticky
    bit they may rename what is ours.
    """
    if sys.platform == "win32":
        return
    above = "/"
    for name in path.strip("/").split("/"):
        below = os.path.join(above, name)
        mode = os.stat(above).st_mode
        if mode & 0o1002 == 0o0002:
            raise AccessDenied(
                f"cannot keep anything in {path}: everybody may write to {above}",
                hint=f"chmod o-w {above}, or let WHERRY_ROOT name another place",
            )
        owner = os.lstat(below).st_uid
        if mode & 0o002 and owner not in (0, os.geteuid()):
            raise AccessDenied(
                f"cannot keep anything in {path}: {below} belongs to user {owner}",
                hint="WHERRY_ROOT names another place",
            )
        above = below


def open_private(path: str, flags: int) -> int:
    """An opener, as open() wants one, of files that nobody else may read."""
    return os.open(path, flags, 0o600)


def write_atomic(
    path: str, content: bytes, *, mode: int = 0o600, sync: bool = False, promptly: bool = False
) -> None:
    """Put `content` at `path`: a reader sees the old file or the new one, never half of it.

    `sync` makes it last over a power failure as well. `promptly` has the disk begin with it and
    waits for nothing: where a name is new, its file would be an empty one for half a minute if
    the power failed.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        descriptor = _create(temporary, mode)
        try:
            write_all(descriptor, content)
            if sync:
                os.fsync(descriptor)
            elif promptly and sys.platform == "linux":
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        if sync:
            _sync_directory(os.path.dirname(path))
    except OSError as error:
        try:
            remove_file(temporary)
        except OSError:
            pass  # on a read-only disk it is not there either
        raise storage_error(error, f"write {path}") from error


def _sync_directory(path: str) -> None:
    """Have the names in a directory on the disk."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create(path: str, mode: int) -> int:
    """A descriptor of a new file, whatever another process or user has left at `path`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, mode)


class Draft:
    """A file that takes its name when the block that writes it ends well, and is gone otherwise.

    A device or a pipe that has the name keeps it, and gets what is written as it comes.
    Entering gives a descriptor to write to. Raises our error where it cannot be written.
    """

    def __init__(self, path: str, *, mode: int = 0o600) -> None:
        self._path = path
        self._mode = mode
        self._target = self._draft = ""
        self._descriptor = -1
        self._is_wanted = True

    def discard(self) -> None:
        """Let the file be gone at the end of the block, which ends well all the same."""
        self._is_wanted = False

    def __enter__(self) -> int:
        try:
            if _is_special(self._path):
                self._descriptor = os.open(self._path, os.O_WRONLY)
            else:
                self._target = os.path.realpath(self._path)  # a link stays one
                self._draft = f"{self._target}.{os.getpid()}.tmp"
                self._descriptor = _create(self._draft, self._mode)
        except OSError as error:
            raise storage_error(error, f"write {self._path}") from error
        return self._descriptor

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)
        try:
            if error is None and self._is_wanted:
                if self._draft:
                    os.replace(self._draft, self._target)
                return
        except OSError as problem:
            error = problem
        if self._draft:
            remove_file(self._draft)
        if isinstance(error, OSError):
            raise storage_error(error, f"write {self._path}") from error


def _is_special(path: str) -> bool:
    """Whether there is something that is written to, and not replaced: /dev/stdout, a fifo."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def write_asked(path: str, content: bytes) -> None:
    """Put `content` where a user has said: a file is there whole or not at all."""
    with Draft(path, mode=0o644) as descriptor:
        write_all(descriptor, content)


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write everything, waiting for a slow reader even where writes do not block."""
    view = memoryview(content)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            from wherry.lean import select

            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


def write_json(
    path: str, value: Any, *, mode: int = 0o600, sync: bool = False, promptly: bool = False
) -> None:
    """Put `value` at `path` as JSON, atomically: as `write_atomic` does."""
    write_atomic(path, dump_json(value).encode(), mode=mode, sync=sync, promptly=promptly)


def read_json(path: str, shape: Any = None) -> Any:
    """The JSON value at `path`. Raises FileNotFoundError, or CorruptState with the path.

    That is also raised where it has not the `shape` (see wherry.shapes).
    """
    try:
        found = load_json(read_file(path))
    except ValueError as error:
        raise CorruptState(f"{path} is damaged: {error}") from error
    if shape is not None:
        from wherry.shapes import fits

        if not fits(found, shape):
            raise CorruptState(f"{path} is damaged: it does not hold what it should")
    return found


def read_file(path: str) -> bytes:
    """What a small file of ours holds. Raises FileNotFoundError, or CorruptState.

    Nobody waits for a pipe that lies there in the place of it.
    """
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        if size > _LARGEST_RECORD:
            raise CorruptState(f"{path} is damaged: it is larger than {_LARGEST_RECORD >> 20} MiB")
        # One byte more than there is tells that this is the end.
        pieces = [os.read(descriptor, size + 1)]
        while len(pieces[-1]) and len(pieces[0]) != size:
            pieces.append(os.read(descriptor, _LARGEST_RECORD))
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def open_regular(path: str) -> int:
    """A descriptor of a file, to read. Raises FileNotFoundError, or CorruptState for no file."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ELOOP):  # a socket, a link to itself
            raise CorruptState(f"{path} is damaged: it is no file") from error
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise CorruptState(f"{path} is damaged: it is no file")


def remove_file(path: str) -> None:
    """Remove `path` if it is there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def storage_error(error: OSError, action: str) -> WherryError:
    """Our error for a failed write: a full disk and a read-only one have a mend of their own."""
    hint = {
        errno.ENOSPC: "the disk is full: `wherry system df` shows what uses it",
        errno.EDQUOT: "the disk quota is used up: `wherry system df` shows what uses it",
    }.get(error.errno or 0)
    if error.errno in (errno.EROFS, errno.EACCES) and _may_be_data(error.filename):
        hint = "WHERRY_ROOT moves wherry's data elsewhere"
    return WherryError(f"cannot {action}: {error.strerror or error}", hint=hint)


def _may_be_data(path: object) -> bool:
    """Whether a path is not one that a user has named: data of ours, or on the way there."""
    if not isinstance(path, str):
        return True
    places = (f"{paths.data()}/", f"{paths.run()}/")
    return any(place.startswith(f"{path}/") or path.startswith(place) for place in places)


def whole(
    names: Iterable[str], load: Callable[[str], T], damaged: list[CorruptState] | None
) -> list[T]:
    """What `load` finds of a store's records; what is wrong with others in `damaged`."""
    found = []
    for name in names:
        try:
            found.append(load(name))
        except (NotFound, UsageError):
            continue  # removed a moment ago, or nothing of ours
        except CorruptState as error:
            if damaged is not None:
                damaged.append(error)
    return found


class Lock:
    """An exclusive lock on a file or directory, held by this open descriptor.

    The kernel lets go of it when the process ends, however it ends. On POSIX `path`
    may be a directory, which is then its own lock file.
    """

    def __init__(
        self, path: str, *, shared: bool = False, wait: bool = True, create: bool = True
    ) -> None:
        """`wait=False` raises Conflict where another process holds it.

        A missing file is made unless `create` is False, which raises FileNotFoundError.
        """
        self._path = path
        self._shared = shared
        self._wait = wait
        self._create = create
        self._descriptor = -1

    def __enter__(self) -> Lock:
        try:
            # Nobody waits for a pipe that lies there in the place of it.
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
            self._descriptor = os.open(self._path, flags)
        except FileNotFoundError:
            if not self._create:
                raise
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(self._descriptor, self._shared, self._wait)
        except BlockingIOError:
            os.close(self._descriptor)
            raise Conflict(f"{self._path} is in use by another wherry process") from None
        return self

    def fileno(self) -> int:
        """The descriptor that holds the lock; a forked child holds it too."""
        return self._descriptor

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)
        self._descriptor = -1


if sys.platform == "win32":

    def _lock(descriptor: int, shared: bool, wait: bool) -> None:  # noqa: ARG001
        import msvcrt

        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                return
            except PermissionError:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
            except OSError as error:
                # It waits for ten seconds of its own accord.
                if error.errno != errno.EDEADLK:
                    raise

else:

    def _lock(descriptor: int, shared: bool, wait: bool) -> None:
        import fcntl

        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
