"""Tar streams, read and written quickly: POSIX ustar and pax, GNU long names, base-256.

`tarfile` takes 0.3 ms for a member, which is as long as all else that unpacking a small
file takes. What a layer needs is here; sparse members, which no image tool writes, are
refused.
"""

from __future__ import annotations

import struct
from zlib import adler32

from wherry.errors import CorruptState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

BLOCK = 512
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_CHECKSUM = slice(148, 156)
_ZEROS = bytes(BLOCK)
END = _ZEROS * 2
"""What ends a stream."""
_OCTAL = frozenset(b"01234567")
_LARGEST_METADATA = 16 << 20
_CUT_SHORT = "the tar stream ends in the middle"
_NO_ID = (1 << 32) - 1  # (uid_t) -1, which chown(2) takes for "as it is"

FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = "0123456"

_XATTR = "SCHILY.xattr."
_LIBARCHIVE_XATTR = "LIBARCHIVE.xattr."


class Member:
    """One entry of an archive. `name` is as it was written, without a trailing slash."""

    __slots__ = (
        "gid", "linkname", "major", "minor", "mode", "mtime_ns", "name", "size", "type", "uid",
        "xattrs",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        type: str = FILE,  # noqa: A002
        *,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime_ns: int = 0,
        linkname: str = "",
        major: int = 0,
        minor: int = 0,
        xattrs: Mapping[str, bytes] | None = None,
    ) -> None:
        self.name = name
        self.type = type
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size
        self.mtime_ns = mtime_ns
        self.linkname = linkname
        self.major = major
        self.minor = minor
        self.xattrs = xattrs or {}


class TarReader:
    """The members of a tar stream, each followed by its content.

    `read(size)` gives up to `size` bytes, and none only at the end. Content that is not
    taken is passed over. Files of `aside` bytes or more come without their content, if that
    is not 0.
    """

    def __init__(self, read: Callable[[int], bytes], *, aside: int = 0) -> None:
        self._source = read
        self._aside = aside
        self._buffer = b""
        self._position = 0
        self._left = 0  # of the member's content
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        """Raises CorruptState for what is no tar, or ends early."""
        pax: dict[str, bytes] = {}
        everywhere: dict[str, bytes] = {}
        long_name = long_link = None
        while True:
            self.skip()
            if self._is_at_end():
                return
            header = self._take(BLOCK)
            if header == _ZEROS:
                self._drain()
                return
            fields = _HEADER.unpack(header)
            _check(header, fields[6])
            kind, size = fields[7], _number(fields[4])
            if kind in (b"x", b"g", b"L", b"K"):
                if not 0 <= size <= _LARGEST_METADATA:
                    raise CorruptState("not a tar stream: a header has an impossible size")
                self._begin(size)
                content = self.content()
                if kind == b"x":
                    pax = _pax(content)
                elif kind == b"g":
                    everywhere.update(_pax(content))
                elif kind == b"L":
                    long_name = content.rstrip(b"\0")
                else:
                    long_link = content.rstrip(b"\0")
                continue
            if kind == b"V":  # GNU's label of a volume
                continue
            member = _member(fields, size, {**everywhere, **pax} if pax else everywhere,
                             long_name, long_link)  # fmt: skip
            pax, long_name, long_link = {}, None, None
            self._begin(0 if member.type != FILE or self.is_aside(member) else member.size)
            yield member

    def is_aside(self, member: Member) -> bool:
        """Whether the content of a file is elsewhere."""
        return 0 < self._aside <= member.size

    def _is_at_end(self) -> bool:
        """Whether the stream ends here: not all archives have the blocks that say so."""
        if self._position == len(self._buffer):
            self._buffer = self._source(1 << 18)
            self._position = 0
        return not self._buffer

    def _begin(self, size: int) -> None:
        self._left = size
        self._padding = -size % BLOCK

    def content(self) -> bytes:
        """The whole content of the member, for what is known to be small."""
        data = self._take(self._left)
        self._left = 0
        return data

    def pieces(self) -> Iterator[bytes]:
        """The content of the member in pieces."""
        while self._left:
            if self._position == len(self._buffer):
                self._fill()
            piece = self._buffer[self._position : self._position + self._left]
            self._position += len(piece)
            self._left -= len(piece)
            yield piece

    def skip(self) -> None:
        """Pass over what is left of the member."""
        left, padding = self._left, self._padding
        self._left = self._padding = 0
        while left or padding:
            if self._is_at_end():
                if left:
                    raise CorruptState(_CUT_SHORT)
                return  # umoci pads no last member
            step = min(left or padding, len(self._buffer) - self._position)
            self._position += step
            if left:
                left -= step
            else:
                padding -= step

    def _take(self, size: int) -> bytes:
        end = self._position + size
        if end <= len(self._buffer):
            data = self._buffer[self._position : end]
            self._position = end
            return data
        pieces = [self._buffer[self._position :]]
        missing = size - len(pieces[0])
        while missing:
            self._fill()
            piece = self._buffer[:missing]
            self._position = len(piece)
            missing -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def _fill(self) -> None:
        self._buffer = self._source(1 << 18)
        self._position = 0
        if not self._buffer:
            raise CorruptState(_CUT_SHORT)

    def _drain(self) -> None:
        """Read what follows the end of the archive, so that a digest covers it."""
        while self._source(1 << 18):
            pass


def _check(header: bytes, stored: bytes) -> None:
    # The checksum is made with its own field as spaces.
    expected = _sum(header) - sum(header[_CHECKSUM]) + 8 * 32
    try:
        found = int(stored.rstrip(b"\0 ") or b"-1", 8)
    except ValueError:
        found = -1
    if found != expected:
        raise CorruptState("not a tar stream: a header's checksum is wrong")


def _sum(block: bytes) -> int:
    """The sum of a block's bytes: Adler-32 begins with 1 and adds them up, modulo 65521."""
    half = BLOCK // 2  # so many bytes never come to as much
    return (adler32(block[:half]) & 0xFFFF) + (adler32(block[half:]) & 0xFFFF) - 2


def _number(field: bytes) -> int:
    """Octal text, or base-256 where the first bit is set (GNU)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        if field[0] == 0xFF:
            value = int.from_bytes(field, "big", signed=True)
        return value
    text = field.rstrip(b"\0 ").lstrip()
    if not text:
        return 0
    digits = text.partition(b"\0")[0]
    if not _OCTAL.issuperset(digits):
        raise CorruptState("not a tar stream: a number is not octal")
    return int(digits or b"0", 8)


def _text(field: bytes) -> str:
    return field.decode("utf-8", "surrogateescape")


def _pax(content: bytes) -> dict[str, bytes]:
    """The records of a pax header: `LENGTH KEY=VALUE\\n`, the length in decimal."""
    records: dict[str, bytes] = {}
    start = 0
    while start < len(content):
        space = content.find(b" ", start, start + 20)
        try:
            end = start + int(content[start:space])
            if space < 0 or end <= space or content[end - 1 : end] != b"\n":
                raise ValueError
        except ValueError:
            raise CorruptState("not a tar stream: a pax header is malformed") from None
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if equals:
            records[_text(key)] = value
        start = end
    return records


def _member(
    fields: tuple[bytes, ...],
    size: int,
    pax: Mapping[str, bytes],
    long_name: bytes | None,
    long_link: bytes | None,
) -> Member:
    name, linkname = fields[0].partition(b"\0")[0], fields[8].partition(b"\0")[0]
    if fields[14][0] and fields[9][:5] == b"ustar" and fields[9][5:6] == b"\0":
        name = fields[14].partition(b"\0")[0] + b"/" + name
    kind = _text(fields[7])
    if kind in ("\0", "7"):
        kind = FILE
    if kind not in "0123456":
        what = "a sparse file" if kind == "S" else f"of the unknown type {kind!r}"
        raise CorruptState(f"tar member {_text(name)} is {what}, which layers do not have")
    member = Member(
        _text(long_name if long_name is not None else name),
        kind,
        mode=_number(fields[1]) & 0o7777,
        uid=_number(fields[2]),
        gid=_number(fields[3]),
        size=size,
        mtime_ns=_number(fields[5]) * 1_000_000_000,
        linkname=_text(long_link if long_link is not None else linkname),
        major=_number(fields[12]) if kind in "34" else 0,
        minor=_number(fields[13]) if kind in "34" else 0,
    )
    if pax:
        _apply(member, pax)
    if member.type == FILE and member.name.endswith("/"):
        member.type = DIRECTORY  # before ustar, a directory was told by its slash
    member.name = member.name.rstrip("/") or "."
    if member.size < 0 or not 0 <= member.uid < _NO_ID or not 0 <= member.gid < _NO_ID:
        raise CorruptState(f"tar member {member.name} has an impossible size or owner")
    return member


def _apply(member: Member, pax: Mapping[str, bytes]) -> None:
    xattrs: dict[str, bytes] = {}
    for key, value in pax.items():
        if key.startswith(_XATTR):
            xattrs[key[len(_XATTR) :]] = value
        elif key.startswith(_LIBARCHIVE_XATTR):
            xattrs.setdefault(*_libarchive_xattr(key[len(_LIBARCHIVE_XATTR) :], value))
        elif key.startswith("GNU.sparse."):
            raise CorruptState(f"tar member {member.name} is sparse, which layers are not")
        elif key == "path":
            member.name = _text(value)
        elif key == "linkpath":
            member.linkname = _text(value)
        elif key in ("size", "uid", "gid", "mtime"):
            try:
                if key == "mtime":
                    member.mtime_ns = _nanoseconds(value)
                else:
                    setattr(member, key, int(value))
            except ValueError:
                raise CorruptState(f"tar member {member.name} has a malformed {key}") from None
    member.xattrs = xattrs


def _libarchive_xattr(name: str, value: bytes) -> tuple[str, bytes]:
    """An attribute as libarchive writes it: its name as in a URL, its value in base64."""
    import base64
    from urllib.parse import unquote

    try:
        return unquote(name, errors="surrogateescape"), base64.b64decode(value + b"==")
    except ValueError:
        raise CorruptState(f"not a tar stream: the attribute {name} is malformed") from None


def _nanoseconds(text: bytes) -> int:
    whole, _, fraction = text.partition(b".")
    nanoseconds = abs(int(whole)) * 1_000_000_000 + int((fraction + b"0" * 9)[:9])
    return -nanoseconds if text.startswith(b"-") else nanoseconds


class TarWriter:
    """Writes a tar stream: ustar, with pax headers for what ustar cannot say."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def add(self, member: Member, content: Iterable[bytes] = ()) -> None:
        """Append a member; the pieces of `content` have `member.size` bytes together."""
        self._write(header_of(member))
        written = 0
        for piece in content:
            self._write(piece)
            written += len(piece)
        if written != member.size and member.type == FILE:
            raise CorruptState(f"{member.name} changed its size while it was read")
        if written % BLOCK:
            self._write(bytes(-written % BLOCK))

    def close(self) -> None:
        """Write the end of the archive."""
        self._write(END)


def header_of(member: Member) -> bytes:
    """What stands before a member's content: a pax header where it needs one, and its own."""
    name = member.name + ("/" if member.type == DIRECTORY and member.name[-1:] != "/" else "")
    records: list[tuple[str, bytes]] = []
    plain = _encode(name, "path", 100, records)
    link = _encode(member.linkname, "linkpath", 100, records)
    uid = _fit("uid", member.uid, 0o7777777, records)
    gid = _fit("gid", member.gid, 0o7777777, records)
    size = _fit("size", member.size, 0o77777777777, records)
    seconds, fraction = divmod(member.mtime_ns, 1_000_000_000)
    if fraction or not 0 <= seconds <= 0o77777777777:
        sign = ""
        if seconds < 0:
            sign, total = "-", -member.mtime_ns
            seconds, fraction = divmod(total, 1_000_000_000)
        tail = f".{fraction:09d}".rstrip("0") if fraction else ""
        records.append(("mtime", f"{sign}{seconds}{tail}".encode()))
        seconds = seconds if not sign and seconds <= 0o77777777777 else 0
    records += [(_XATTR + key, value) for key, value in sorted(member.xattrs.items())]
    header = _block(plain, member, uid, gid, size, seconds, link, member.type.encode())
    if not records:
        return header
    body = b"".join(_record(key, value) for key, value in records)
    first = _block(b"pax_header", member, 0, 0, len(body), 0, b"", b"x")
    return first + body + bytes(-len(body) % BLOCK) + header


def _encode(text: str, key: str, room: int, records: list[tuple[str, bytes]]) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > room or not data.isascii():
        records.append((key, data))
        return data[:room]
    return data


def _fit(key: str, value: int, largest: int, records: list[tuple[str, bytes]]) -> int:
    if value <= largest:
        return value
    records.append((key, str(value).encode()))
    return 0


def _record(key: str, value: bytes) -> bytes:
    body = b" " + key.encode("utf-8", "surrogateescape") + b"=" + value + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def _block(
    name: bytes, member: Member, uid: int, gid: int, size: int, mtime: int, link: bytes, kind: bytes
) -> bytes:
    is_device = member.type in (CHARACTER, BLOCK_DEVICE)
    header = _HEADER.pack(
        name,
        b"%07o" % member.mode,
        b"%07o" % uid,
        b"%07o" % gid,
        b"%011o" % size,
        b"%011o" % mtime,
        b" " * 8,
        kind,
        link,
        b"ustar\x0000",
        b"",
        b"",
        b"%07o" % (member.major if is_device else 0),
        b"%07o" % (member.minor if is_device else 0),
        b"",
    )
    checksum = b"%06o\0 " % _sum(header)
    return header[:148] + checksum + header[156:]
