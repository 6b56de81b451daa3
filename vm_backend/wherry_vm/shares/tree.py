"""What a share gives access to: a directory of the host, and nothing outside it.

A path is a sequence of names below the root. No name is ever followed where it is a
symbolic link: links are text here, which the guest's kernel follows on its own side, and a
path with one in its middle is one that changed meanwhile. Only regular files are opened.
"""

from __future__ import annotations

import errno
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any, Protocol

    from wherry_vm.shares.owners import Owners
    from wherry_vm.shares.sftp import Attributes

    class OpenFile(Protocol):
        """A regular file."""

        def read(self, size: int, offset: int) -> bytes: ...
        def read_at_once(self, size: int, offset: int, /) -> bytes | None: ...
        def write(self, data: bytes, offset: int) -> None: ...
        def attributes(self) -> bytes: ...
        def change(self, wanted: Attributes) -> None: ...
        def sync(self) -> None: ...
        def close(self) -> None: ...

    class Tree(Protocol):
        """A shared directory. Every method raises OSError."""

        def open(self, path: bytes, flags: int, mode: int) -> OpenFile: ...
        def entries(self, path: bytes) -> Generator[tuple[bytes, bytes], None, None]: ...
        def attributes(self, path: bytes) -> bytes: ...
        def status(self, path: bytes) -> os.stat_result: ...
        def change(self, path: bytes, wanted: Attributes) -> None: ...
        def remove(self, path: bytes) -> None: ...
        def make_directory(self, path: bytes, mode: int) -> None: ...
        def remove_directory(self, path: bytes) -> None: ...
        def rename(self, old: bytes, new: bytes, *, replace: bool) -> None: ...
        def link(self, old: bytes, new: bytes) -> None: ...
        def symlink(self, target: bytes, path: bytes) -> None: ...
        def read_link(self, path: bytes) -> bytes: ...
        def file_system(self) -> tuple[int, ...]: ...
        def close(self) -> None: ...


class HostFile:
    """An open file of this host's, in a tree; each system reads and writes in its own way."""

    def __init__(self, tree: Any, descriptor: int, path: bytes, *, appends: bool) -> None:
        self._tree = tree
        self.descriptor = descriptor
        self.path = path
        self._appends = appends

    def read_at_once(self, _size: int, _offset: int) -> bytes | None:
        """The same as `read`, where no disk has to be waited for; None where one may have to."""
        return None

    def attributes(self) -> bytes:
        found: bytes = self._tree.attributes_of(self)
        return found

    def change(self, wanted: Attributes) -> None:
        self._tree.change_open(self, wanted)

    def sync(self) -> None:
        os.fsync(self.descriptor)

    def close(self) -> None:
        os.close(self.descriptor)


def open_tree(root: str, owners: Owners, *, readonly: bool = False) -> Tree:
    """The directory `root` of this host. Raises OSError."""
    if sys.platform == "win32":
        from wherry_vm.shares.windows import WindowsTree as SystemTree
    else:
        from wherry_vm.shares.posix import PosixTree as SystemTree
    return SystemTree(root, owners, readonly=readonly)


def split(path: bytes) -> list[bytes]:
    """The names in `path`. Raises OSError for what leads out of the root, or is no path."""
    names = [each for each in path.split(b"/") if each not in (b"", b".")]
    if b".." in names:
        raise PermissionError(errno.EACCES, "a path with '..'")
    if b"\0" in path:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return names
