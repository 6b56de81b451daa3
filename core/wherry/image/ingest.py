"""Large blobs on their way into the image store: DATA/images/partial/<hex> until they are whole."""

from __future__ import annotations

import errno
import os
import sys

from wherry.errors import CorruptState, Unsupported
from wherry.files import remove_file, storage_error, write_all
from wherry.image import digests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from wherry.image.store import ImageStore


class Ingest:
    """A blob on its way into the store; a context manager.

    `complete`: another process has brought it meanwhile. `offset`: how many bytes are
    here already, from a run that was cut short; write the rest. Leaving without
    `commit` keeps what is there for the next run.
    """

    def __init__(self, store: ImageStore, digest: str, size: int | None) -> None:
        self._store = store
        self._digest = digest
        self._size = size
        self._algorithm = digests.split(digest)[0]
        self._path = store.partial_path(digest)
        self._descriptor = -1
        self._hash: Any = None
        self.complete = False
        self.offset = 0

    def __enter__(self) -> Ingest:
        if sys.platform == "win32":
            raise Unsupported("images are kept where containers run")
        import fcntl

        target = self._store.blob_path(self._digest)
        while True:
            if os.path.exists(target):
                self.complete = True
                return self
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                if os.stat(self._path).st_ino == os.fstat(self._descriptor).st_ino:
                    break
            except FileNotFoundError:
                pass  # whom we waited for has finished it, or given it up
            os.close(self._descriptor)
            self._descriptor = -1
        self._hash = digests.hasher(self._algorithm)
        while chunk := os.read(self._descriptor, 1 << 20):
            self._hash.update(chunk)
            self.offset += len(chunk)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def write(self, chunk: bytes) -> None:
        """Append. Raises WherryError where the disk is full."""
        try:
            write_all(self._descriptor, chunk)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                os.ftruncate(self._descriptor, 0)
            raise storage_error(error, "store a layer") from error
        self._hash.update(chunk)
        self.offset += len(chunk)

    def restart(self) -> None:
        """Drop what is there."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._hash = digests.hasher(self._algorithm)
        self.offset = 0

    def commit(self) -> None:
        """Verify, and make it a blob. Raises CorruptState, and drops it, where it is wrong."""
        if self._size is not None and self.offset != self._size:
            got = self.offset
            self.restart()
            raise CorruptState(f"blob {self._digest} has {got} bytes instead of {self._size}")
        found = f"{self._algorithm}:{self._hash.hexdigest()}"
        if found != self._digest:
            self.restart()
            raise CorruptState(f"digest mismatch: blob {self._digest} has digest {found}")
        os.fsync(self._descriptor)
        os.chmod(self._path, 0o644)
        os.replace(self._path, self._store.place(self._digest))


def forget_partials(root: str) -> None:
    """Remove what interrupted pulls have left. Nobody may be pulling."""
    directory = f"{root}/partial"
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        remove_file(f"{directory}/{name}")
