"""SFTP version 3 as it is on the wire: draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL file.

A status of version 3 has no room for most error numbers. What sshfs makes of each, on the
guest's side, decides which one stands for what.
"""

from __future__ import annotations

import errno
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

VERSION_NUMBER = 3

INIT, VERSION = 1, 2
OPEN, CLOSE, READ, WRITE, LSTAT, FSTAT, SETSTAT, FSETSTAT = 3, 4, 5, 6, 7, 8, 9, 10
OPENDIR, READDIR, REMOVE, MKDIR, RMDIR, REALPATH, STAT = 11, 12, 13, 14, 15, 16, 17
RENAME, READLINK, SYMLINK = 18, 19, 20
STATUS, HANDLE, DATA, NAME, ATTRS = 101, 102, 103, 104, 105
EXTENDED, EXTENDED_REPLY = 200, 201

OPEN_READ, OPEN_WRITE, OPEN_APPEND, OPEN_CREATE, OPEN_TRUNCATE, OPEN_EXCLUSIVE = 1, 2, 4, 8, 16, 32

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE = 0, 1, 2, 3, 4, 5
OP_UNSUPPORTED = 8
# Of version 6; sshfs takes every number that it does not know for EIO.
NO_SPACE = 14

EXTENSIONS = (
    (b"posix-rename@openssh.com", b"1"),
    (b"statvfs@openssh.com", b"2"),
    (b"fstatvfs@openssh.com", b"2"),
    (b"hardlink@openssh.com", b"1"),
    (b"fsync@openssh.com", b"1"),
    (b"limits@openssh.com", b"1"),
)

LONGEST_PACKET = 1 << 18
LONGEST_DATA = LONGEST_PACKET - 1024
MOST_HANDLES = 4096

_HAS_SIZE, _HAS_OWNER, _HAS_MODE, _HAS_TIMES, _HAS_EXTENDED = 1, 2, 4, 8, 1 << 31
_ATTRIBUTES = struct.Struct(">IQIIIII")
_U32, _U64 = struct.Struct(">I"), struct.Struct(">Q")
_HEAD = struct.Struct(">IBI")

# FAILURE is EPERM to sshfs, which makes EXDEV of a rename's, and EEXIST of a mkdir's.
_STATUS_OF = {
    errno.ENOENT: NO_SUCH_FILE,
    errno.EACCES: PERMISSION_DENIED,
    errno.EROFS: PERMISSION_DENIED,
    errno.EPERM: FAILURE,
    errno.EEXIST: FAILURE,
    errno.ENOTEMPTY: FAILURE,
    errno.EXDEV: FAILURE,
    errno.EINVAL: BAD_MESSAGE,
    errno.ENOTDIR: NO_SUCH_FILE,
    errno.EOPNOTSUPP: OP_UNSUPPORTED,
    errno.ENOSPC: NO_SPACE,
}


class Attributes:
    """What a request says about a file; None where it says nothing."""

    __slots__ = ("mode", "owner", "size", "times")

    def __init__(self) -> None:
        self.size: int | None = None
        self.owner: tuple[int, int] | None = None
        self.mode: int | None = None
        self.times: tuple[int, int] | None = None


class Reader:
    """The fields of a packet, one after the other. Raises ValueError where it ends too early."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        return self._take(1)[0]

    def u32(self) -> int:
        number: int = _U32.unpack(self._take(4))[0]
        return number

    def u64(self) -> int:
        number: int = _U64.unpack(self._take(8))[0]
        return number

    def text(self) -> bytes:
        return self._take(self.u32())

    def attributes(self) -> Attributes:
        found, flags = Attributes(), self.u32()
        if flags & _HAS_SIZE:
            found.size = self.u64()
        if flags & _HAS_OWNER:
            found.owner = (self.u32(), self.u32())
        if flags & _HAS_MODE:
            found.mode = self.u32()
        if flags & _HAS_TIMES:
            found.times = (self.u32(), self.u32())
        return found

    def _take(self, size: int) -> bytes:
        start = self._at
        self._at = start + size
        data = self._data[start : self._at]
        if len(data) != size:
            raise ValueError("the packet is too short")
        return data


def packet(kind: int, number: int, body: bytes = b"") -> bytes:
    """An answer to the request `number`."""
    return _HEAD.pack(5 + len(body), kind, number) + body


def version() -> bytes:
    """The answer to INIT."""
    body = b"".join(text(name) + text(content) for name, content in EXTENSIONS)
    return packet(VERSION, VERSION_NUMBER, body)


def text(content: bytes) -> bytes:
    return _U32.pack(len(content)) + content


def numbers(*values: int) -> bytes:
    """Fields of 64 bits."""
    return b"".join(_U64.pack(each & 0xFFFFFFFFFFFFFFFF) for each in values)


def attributes(status: os.stat_result, uid: int, gid: int, mode: int) -> bytes:
    """A file's attributes, with an owner and a mode that need not be the host's."""
    return _ATTRIBUTES.pack(
        _HAS_SIZE | _HAS_OWNER | _HAS_MODE | _HAS_TIMES,
        status.st_size,
        uid & 0xFFFFFFFF,
        gid & 0xFFFFFFFF,
        mode,
        _time(status.st_atime),
        _time(status.st_mtime),
    )


def names(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Names with their attributes; what `ls -l` would show of them nobody reads."""
    return _U32.pack(len(entries)) + b"".join(
        text(name) + b"\0\0\0\0" + attributes for name, attributes in entries
    )


def status(number: int, code: int, message: str = "") -> bytes:
    return packet(
        STATUS, number, _U32.pack(code) + text(message.encode(errors="replace")) + text(b"")
    )


def failure(number: int, error: OSError) -> bytes:
    """The status that tells most of `error`."""
    code = _STATUS_OF.get(error.errno or 0)
    if code is None:
        code = NO_SPACE if error.errno in _LIKE_EIO else FAILURE
    return status(number, code, error.strerror or str(error))


_LIKE_EIO = {errno.EIO, errno.EFBIG, *filter(None, [getattr(errno, "EDQUOT", 0)])}


def packets(buffer: bytearray) -> Iterator[bytes]:
    """The whole packets in `buffer`, which are taken out. Raises ValueError for one too long."""
    at = 0
    try:
        while len(buffer) - at >= 4:
            size = _U32.unpack_from(buffer, at)[0]
            if size > LONGEST_PACKET or size < 1:
                raise ValueError(f"a packet of {size} bytes")
            if len(buffer) - at - 4 < size:
                return
            at += 4 + size
            yield bytes(buffer[at - size : at])
    finally:
        del buffer[:at]


def _time(seconds: float) -> int:
    return min(max(int(seconds), 0), 0xFFFFFFFF)
