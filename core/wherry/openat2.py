"""openat2(2): the kernel walks a path, and lets none of it lead out of a directory. Linux only."""

from __future__ import annotations

import errno
import os
import sys

from wherry.errors import Unsupported

# linux/openat2.h
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

_SYS_openat2 = 437
# How often it is asked about a path that others get in the way of.
_TRIES = 1000

if sys.platform == "linux":
    import ctypes

    _OpenHow = ctypes.c_uint64 * 3
    _SIZE = ctypes.c_size_t(ctypes.sizeof(_OpenHow))
    _libc = ctypes.CDLL(None, use_errno=True)
    _libc.syscall.restype = ctypes.c_long

    def openat2(
        directory: int, path: str | bytes, flags: int, *, mode: int = 0, resolve: int = 0
    ) -> int:
        """A descriptor that the caller owns, close-on-exec. Raises OSError.

        Where something on the host was renamed or mounted meanwhile, the kernel cannot vouch for
        a `..` on the way (EAGAIN), and is asked again.
        """
        how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
        number = errno.EAGAIN
        for _ in range(_TRIES):
            descriptor: int = _libc.syscall(
                ctypes.c_long(_SYS_openat2), directory, os.fsencode(path), how, _SIZE
            )
            if descriptor >= 0:
                return descriptor
            number = ctypes.get_errno()
            if number != errno.EAGAIN:
                break
        raise OSError(number, os.strerror(number), path)

else:

    def openat2(*_: object, **__: object) -> int:
        """Raises Unsupported."""
        raise Unsupported("paths are walked so on Linux only")
