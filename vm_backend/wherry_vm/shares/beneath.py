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
    import ctypes

    _SYS_OPENAT2 = 437
    _NO_XDEV_ESCAPE = 0x08  # RESOLVE_BENEATH
    _NO_LINKS = 0x02 | 0x04  # RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS
    _libc = ctypes.CDLL(None, use_errno=True)
    _HOW = (ctypes.c_uint64 * 3)(_DIRECTORY, 0, _NO_XDEV_ESCAPE | _NO_LINKS)

    def _call_openat2(root: int, path: bytes) -> int:
        descriptor = int(
            _libc.syscall(_SYS_OPENAT2, root, path, ctypes.byref(_HOW), ctypes.sizeof(_HOW))
        )
        if descriptor < 0:
            number = ctypes.get_errno()
            raise _as_told(OSError(number, os.strerror(number)))
        return descriptor

    def _is_there() -> bool:
        try:
            os.close(_call_openat2(-100, b"."))
        except OSError:
            return False
        return True

    if _is_there():
        _openat2 = _call_openat2
