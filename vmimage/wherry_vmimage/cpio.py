"""A tree as a cpio archive in the kernel's format for an initramfs ("newc")."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

    from wherry_vmimage.tree import Kind, Tree

_MAGIC = b"070701"
_END = "TRAILER!!!"
_TYPES: dict[Kind, int] = {
    "file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK,
    "char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO,
}  # fmt: skip


def write_cpio(tree: Tree, output: SupportsWrite[bytes], *, mtime: int) -> None:
    """Write `tree` to `output`; every file is of `mtime`. A hard link becomes a file of its own."""
    for number, (path, entry) in enumerate(tree.entries(), 1):
        if not path:
            continue
        kind = "file" if entry.kind == "hardlink" else entry.kind
        content = b""
        if kind == "file":
            content = tree.read(path)
        elif kind == "symlink":
            content = entry.target.encode("utf-8", "surrogateescape")
        mode = _TYPES[kind] | stat.S_IMODE(entry.mode)
        links = 2 if kind == "directory" else 1
        fields = (number, mode, entry.uid, entry.gid, links, mtime, len(content), 0, 0)
        output.write(_member(path, (*fields, *entry.device), content))
    output.write(_member(_END, (0,) * 11, b""))


def _member(path: str, fields: tuple[int, ...], content: bytes) -> bytes:
    """A header of numbers in hexadecimal, the name and the content, each padded to four bytes."""
    name = path.encode("utf-8", "surrogateescape") + b"\0"
    numbers = b"".join(b"%08X" % number for number in (*fields, len(name), 0))
    head = _MAGIC + numbers + name
    return head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)
