"""A tree as an erofs file system: read-only, uncompressed, the same bytes for the same tree.

The layout is that of the kernel's Documentation/filesystems/erofs.rst and
fs/erofs/erofs_fs.h: a superblock; then every inode, each followed by its extended
attributes and, where it fits into the block, by the end of its data; then the blocks of
data. A directory is data too. Every file has the one time of the file system, which is
what a compact inode is short of.
"""

from __future__ import annotations

import posixpath
import stat
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wherry.errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import SupportsWrite

    from wherry_vmimage.tree import Entry, Kind, Tree

_BLOCK_BITS = 12
_BLOCK = 1 << _BLOCK_BITS
_SUPERBLOCK_AT = 1024
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQ24s")
_MAGIC = 0xE0F5E1E2
_COMPAT_CHECKSUM = 1
_CHECKSUM_AT = 4  # in the superblock

_SLOT = 32  # inodes are numbered by where they stand, in units of this
_COMPACT = struct.Struct("<HHHHIIIIHHI")
_EXTENDED = struct.Struct("<HHHHQIIIIQII16x")
_PLAIN, _INLINE = 0, 2  # where the data is: in blocks, or its end behind the inode
_NO_BLOCK = 0xFFFFFFFF

_DIRENT = struct.Struct("<QHBB")
_TYPES: dict[Kind, tuple[int, int]] = {
    "file": (1, stat.S_IFREG),
    "directory": (2, stat.S_IFDIR),
    "char": (3, stat.S_IFCHR),
    "block": (4, stat.S_IFBLK),
    "fifo": (5, stat.S_IFIFO),
    "symlink": (7, stat.S_IFLNK),
}
_MAX_NAME = 255

_XATTR_HEADER = struct.Struct("<IB7x")
_XATTR_ENTRY = struct.Struct("<BBH")
# The whole name of an access control list is its prefix.
_XATTR_PREFIXES = {
    "system.posix_acl_access": 2,
    "system.posix_acl_default": 3,
    "user.": 1,
    "trusted.": 4,
    "security.": 6,
}


def write_erofs(tree: Tree, output: SupportsWrite[bytes], *, mtime: int) -> int:
    """Write `tree` to `output`; the size in bytes. Every file is of `mtime`."""
    return _Writer(tree, mtime).write(output)


@dataclass(eq=False, slots=True)
class _Inode:
    number: int
    kind: Kind
    entry: Entry
    size: int
    links: int = 1
    xattrs: bytes = b""
    position: int = 0  # of the inode, in bytes
    inline: bool = False  # whether the end of its data stands behind it
    block: int = _NO_BLOCK  # where its data begins
    # Of a directory: names and what they stand for, in the order of the names.
    names: list[tuple[bytes, _Inode]] = field(default_factory=list)

    @property
    def nid(self) -> int:
        return self.position // _SLOT

    @property
    def extended(self) -> bool:
        """Whether some number is too large for a compact inode."""
        entry = self.entry
        return max(entry.uid, entry.gid, self.links) > 0xFFFF or self.size > 0xFFFFFFFF

    @property
    def head(self) -> int:
        """The bytes of the inode and its attributes."""
        return (_EXTENDED.size if self.extended else _COMPACT.size) + len(self.xattrs)

    @property
    def tail(self) -> int:
        """The bytes of data after the last whole block."""
        return self.size % _BLOCK

    @property
    def blocks(self) -> int:
        """The blocks that its data takes by itself."""
        return self.size // _BLOCK + (1 if self.tail and not self.inline else 0)


class _Writer:
    def __init__(self, tree: Tree, mtime: int) -> None:
        self._tree = tree
        self._mtime = mtime
        self._inodes: list[_Inode] = []

    def write(self, output: SupportsWrite[bytes]) -> int:
        self._read_tree()
        end = self._place_inodes()
        blocks = self._place_data(-(-end // _BLOCK))
        output.write(self._metadata(end, blocks))
        for inode in self._inodes:
            content = self._content(inode) if inode.blocks else b""
            whole = content[: inode.blocks * _BLOCK]
            output.write(whole)
            output.write(b"\0" * (-len(whole) % _BLOCK))
        return blocks * _BLOCK

    # What there is

    def _read_tree(self) -> None:
        by_path: dict[str, _Inode] = {}
        for path, entry in self._tree.entries():
            if entry.kind == "hardlink":
                inode = by_path[entry.target]
                inode.links += 1
            else:
                inode = self._inode(entry)
            by_path[path] = inode
            if inode.kind == "directory":
                parent = by_path[posixpath.dirname(path)]
                inode.names += [(b".", inode), (b"..", parent)]
                inode.links += 1
            if path:
                directory, _, name = path.rpartition("/")
                by_path[directory].names.append((_name(name), inode))
                by_path[directory].links += inode.kind == "directory"
        for inode in self._inodes:
            if inode.kind == "directory":
                inode.names.sort(key=lambda pair: pair[0])
                inode.size = _directory_size(inode)

    def _inode(self, entry: Entry) -> _Inode:
        size = len(_target(entry)) if entry.kind == "symlink" else entry.size
        inode = _Inode(
            number=len(self._inodes) + 1,
            kind=entry.kind,
            entry=entry,
            size=size,
            xattrs=_xattrs(entry.xattrs),
        )
        self._inodes.append(inode)
        return inode

    # Where it is

    def _place_inodes(self) -> int:
        """Give every inode its position, the root the first; the end of them."""
        position = _SUPERBLOCK_AT + _SUPERBLOCK.size
        for inode in self._inodes:
            inode.inline = inode.tail > 0 and inode.head + inode.tail <= _BLOCK
            size = inode.head + (inode.tail if inode.inline else 0)
            position += -position % _SLOT
            # What is read together must not lie across two blocks.
            if position % _BLOCK + size > _BLOCK:
                position += -position % _BLOCK
            inode.position = position
            position += size
        # fsck.erofs 1.5 looks for attributes behind an inode that has none.
        return position + _XATTR_HEADER.size

    def _place_data(self, block: int) -> int:
        """Give every inode's data its blocks, from `block` on; the block after the last."""
        for inode in self._inodes:
            if inode.blocks:
                inode.block = block
                block += inode.blocks
        return block

    # How it is written

    def _metadata(self, end: int, blocks: int) -> bytes:
        """The file system up to the first block of data."""
        image = bytearray(-(-end // _BLOCK) * _BLOCK)
        for inode in self._inodes:
            packed = self._packed(inode) + inode.xattrs
            if inode.inline:
                packed += self._content(inode)[-inode.tail :]
            image[inode.position : inode.position + len(packed)] = packed
        superblock = self._superblock(blocks)
        image[_SUPERBLOCK_AT : _SUPERBLOCK_AT + len(superblock)] = superblock
        checksum = _crc32c(image[_SUPERBLOCK_AT:_BLOCK])
        struct.pack_into("<I", image, _SUPERBLOCK_AT + _CHECKSUM_AT, checksum)
        return bytes(image)

    def _superblock(self, blocks: int) -> bytes:
        return _SUPERBLOCK.pack(
            _MAGIC,
            0,  # the checksum, which is computed with this in its place
            _COMPAT_CHECKSUM,
            _BLOCK_BITS,
            0,  # no extension slots
            self._inodes[0].nid,
            len(self._inodes),
            self._mtime,
            0,  # nanoseconds
            blocks,
            0,  # inodes are numbered from the start of the image
            0,  # no shared attributes
            b"",  # no uuid
            b"",  # no name
            0,  # no feature that a reader has to know
            *(0,) * 7,  # what those features would need
            b"",
        )

    def _packed(self, inode: _Inode) -> bytes:
        layout = (_INLINE if inode.inline else _PLAIN) << 1
        count = (len(inode.xattrs) - _XATTR_HEADER.size) // 4 + 1 if inode.xattrs else 0
        entry = inode.entry
        mode = _TYPES[inode.kind][1] | stat.S_IMODE(entry.mode)
        where = _device(entry) if inode.kind in ("char", "block") else inode.block
        if not inode.extended:
            return _COMPACT.pack(
                layout, count, mode, inode.links, inode.size, 0,
                where, inode.number, entry.uid, entry.gid, 0,
            )  # fmt: skip
        return _EXTENDED.pack(
            layout | 1, count, mode, 0, inode.size,
            where, inode.number, entry.uid, entry.gid, self._mtime, 0, inode.links,
        )  # fmt: skip

    def _content(self, inode: _Inode) -> bytes:
        if inode.kind == "directory":
            return b"".join(_directory(inode))
        if inode.kind == "symlink":
            return _target(inode.entry)
        return self._tree.content(inode.entry)


def _name(name: str) -> bytes:
    encoded = name.encode("utf-8", "surrogateescape")
    if len(encoded) > _MAX_NAME:
        raise Unsupported(f"a name is longer than {_MAX_NAME} bytes: {name!r}")
    return encoded


def _target(entry: Entry) -> bytes:
    return entry.target.encode("utf-8", "surrogateescape")


def _device(entry: Entry) -> int:
    """The number of a device as the kernel packs it into 32 bits."""
    major, minor = entry.device
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


def _blocks_of(inode: _Inode) -> Iterator[list[tuple[bytes, _Inode]]]:
    """A directory's names by the block that they stand in."""
    block: list[tuple[bytes, _Inode]] = []
    size = 0
    for name, target in inode.names:
        needed = _DIRENT.size + len(name)
        if size + needed > _BLOCK:
            yield block
            block, size = [], 0
        block.append((name, target))
        size += needed
    yield block


def _directory_size(inode: _Inode) -> int:
    sizes = [sum(_DIRENT.size + len(name) for name, _ in block) for block in _blocks_of(inode)]
    return (len(sizes) - 1) * _BLOCK + sizes[-1]


def _directory(inode: _Inode) -> Iterator[bytes]:
    """A directory's blocks, all but the last of full size: what stands where, then the names."""
    left = inode.size
    for block in _blocks_of(inode):
        offset = len(block) * _DIRENT.size
        dirents, names = b"", b""
        for name, target in block:
            kind = _TYPES[target.kind][0]
            dirents += _DIRENT.pack(target.nid, offset + len(names), kind, 0)
            names += name
        yield (dirents + names).ljust(min(_BLOCK, left), b"\0")
        left -= _BLOCK


def _xattrs(xattrs: dict[str, bytes]) -> bytes:
    """Extended attributes as they stand behind an inode."""
    if not xattrs:
        return b""
    packed = _XATTR_HEADER.pack(0, 0)
    for name, value in sorted(xattrs.items()):
        prefix = next((p for p in _XATTR_PREFIXES if name.startswith(p)), None)
        if prefix is None:
            raise Unsupported(f"erofs has no extended attribute {name!r}")
        rest = name.removeprefix(prefix).encode("utf-8", "surrogateescape")
        packed += _XATTR_ENTRY.pack(len(rest), _XATTR_PREFIXES[prefix], len(value)) + rest + value
        packed += b"\0" * (-len(packed) % 4)
    return packed


def _crc32c(content: bytes | bytearray) -> int:
    """The checksum of iSCSI (RFC 3720), without the inversion at its end, as erofs has it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc
