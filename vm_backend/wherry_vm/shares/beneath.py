"""Opening what is below a directory, following no symbolic link on the way.

Linux does all of a path in one call (openat2); elsewhere, and on kernels before 5.6, it is
one call for each name.
"""

from __future__ import annotations

import errno
import os
import sys

assert sys.platform != "win32"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_directory(root: int, names: list[bytes]) -> int:
    """The directory `names` below `root`; the descriptor is the caller's. Raises OSError."""
    if not names:
        return os.dup(root)
    if _openat2 is not None:
        return _openat2(root, b"/".join(names))
    return _walk(root, names)


def _walk(root: int, names: list[bytes]) -> int:
    here = root
    for name in names:
        try:
            below = os.open(name, _DIRECTORY, dir_fd=here)
        except OSError as error:
            raise _as_told(error) from None
        finally:
            if here != root:
                os.close(here)
        here = below
    return here


def _as_told(error: OSError) -> OSError:
    """A link in the middle of a path is a directory that is gone."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return error


_openat2 = None

if sys.platform == "linux":
    from wherry.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

    _RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS

    def _call_openat2(root: int, path: bytes) -> int:
        try:
            return openat2(root, path, _DIRECTORY, resolve=_RESOLVE)
        except OSError as error:
            raise _as_told(error) from None

    def _is_there() -> bool:
        try:
            os.close(_call_openat2(-100, b"."))
        except OSError:
            return False
        return True

    if _is_there():
        _openat2 = _call_openat2
