"""A root file system as a list of entries, whatever it is written to.

Entries come out of packages' tar archives or are made here; owners, modes, devices and
links are only numbers and names, so nobody has to be root. What is written is sorted,
so the same entries make the same bytes.
"""

from __future__ import annotations

import hashlib
import posixpath
import stat
import tempfile
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Literal

from wherry.errors import CorruptState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from tarfile import TarInfo

    from _typeshed import SupportsWrite

Kind = Literal["file", "directory", "symlink", "hardlink", "char", "block", "fifo"]

# More links than this on the way to a file are a loop (the kernel's own limit).
_MAX_LINKS = 40


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name in the tree. Paths have no leading slash; the root itself is ""."""

    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    target: str = ""  # of a symlink as written, of a hard link as a path of the tree
    device: tuple[int, int] = (0, 0)
    size: int = 0
    offset: int = 0  # of the content, in the tree's spool
    xattrs: dict[str, bytes] = field(default_factory=dict)


class Tree:
    """The entries of a root file system, by path; their contents lie in a temporary file."""

    def __init__(self, directory: str | None = None, *, mtime: int = 0) -> None:
        """`directory` is where the temporary file is made.

        `mtime` is the time of what is made here and does not come out of an archive.
        """
        self.mtime = mtime
        self._entries: dict[str, Entry] = {"": Entry(kind="directory", mode=0o755)}
        self._spool: IO[bytes] = tempfile.TemporaryFile(prefix="wherry-tree-", dir=directory)  # noqa: SIM115
        self._end = 0

    def close(self) -> None:
        self._spool.close()

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __contains__(self, path: str) -> bool:
        return self._resolved(path) in self._entries

    def get(self, path: str) -> Entry | None:
        return self._entries.get(self._resolved(path))

    # Adding

    def directory(self, path: str, mode: int = 0o755) -> None:
        self.add(path, Entry(kind="directory", mode=mode, mtime=self.mtime))

    def symlink(self, path: str, target: str) -> None:
        self.add(path, Entry(kind="symlink", mode=0o777, target=target, mtime=self.mtime))

    def hardlink(self, path: str, target: str) -> None:
        """A further name of the file at `target`, a path of the tree."""
        self.add(path, Entry(kind="hardlink", mode=0, target=target, mtime=self.mtime))

    def file(self, path: str, content: bytes | str, mode: int = 0o644) -> None:
        content = content.encode() if isinstance(content, str) else content
        entry = Entry(kind="file", mode=mode, mtime=self.mtime, size=len(content))
        self.add(path, entry, content)

    def add(self, path: str, entry: Entry, content: bytes = b"") -> None:
        """Put `entry` at `path`, through links as dpkg does.

        Its directory is made where it is missing. A directory that is there already stays
        as it is; anything else is replaced.
        """
        path = self._resolved(path)
        there = self._entries.get(path)
        if there is not None and there.kind == "directory" and entry.kind == "directory":
            return
        if there is not None and there.kind == "symlink" and entry.kind == "directory":
            # The link stands for the directory, as on a system whose /bin is /usr/bin.
            return
        if there is not None and there.kind == "directory":
            raise CorruptState(
                f"/{path} is a directory in one package and a {entry.kind} in another"
            )
        parent = posixpath.dirname(path)
        if parent not in self._entries:
            self.directory(parent)
        if self._entries[parent].kind != "directory":
            raise CorruptState(f"/{parent} is not a directory, but /{path} lies in it")
        if entry.kind == "hardlink":
            entry = replace(entry, target=self._resolved(entry.target))
        if content:
            entry = replace(entry, offset=self._store(content), size=len(content))
        self._entries[path] = entry

    def remove(self, unwanted: Callable[[str], bool]) -> None:
        """Leave `unwanted` paths out, except what is linked to and what holds something else."""
        linked = {e.target for e in self._entries.values() if e.kind == "hardlink"}
        needed: set[str] = {""}
        for path in sorted(self._entries, reverse=True):
            if path in needed or path in linked or not unwanted(path):
                needed.add(posixpath.dirname(path))
            else:
                del self._entries[path]

    def unpack(self, tar: IO[bytes], *, before: Callable[[str], None] | None = None) -> list[str]:
        """Add the members of a tar archive; their paths, as they are called there.

        `before` is told of each path before it is added. Raises CorruptState where a
        member is not a path below the root.
        """
        import tarfile

        listed: list[str] = []
        try:
            with tarfile.open(fileobj=tar, mode="r|") as archive:
                for member in archive:
                    path = _normal(member.name)
                    listed.append(path)
                    if before:
                        before(path)
                    if path:
                        content = archive.extractfile(member) if member.isreg() else None
                        self.add(path, _from_tar(member), content.read() if content else b"")
        except tarfile.TarError as error:
            raise CorruptState(f"its data archive is damaged: {error}") from error
        return listed

    def _store(self, content: bytes) -> int:
        start = self._end
        self._spool.seek(start)
        self._spool.write(content)
        self._end += len(content)
        return start

    def _resolved(self, path: str) -> str:
        """`path` with the links among its directories followed, and never out of the tree."""
        links = 0
        waiting = path.split("/")[::-1]
        done: list[str] = []
        while waiting:
            name = waiting.pop()
            if name == "..":
                del done[-1:]
                continue
            if name in ("", "."):
                continue
            done.append(name)
            entry = self._entries.get("/".join(done)) if waiting else None
            if entry is not None and entry.kind == "symlink":
                links += 1
                if links > _MAX_LINKS:
                    raise CorruptState(f"/{path} leads through too many links")
                done = [] if entry.target.startswith("/") else done[:-1]
                waiting += entry.target.split("/")[::-1]
        return "/".join(done)

    # Reading

    def read(self, path: str) -> bytes:
        """The content of a file, through links. Raises KeyError."""
        for _ in range(_MAX_LINKS):
            path = self._resolved(path)
            entry = self._entries[path]
            if entry.kind == "symlink":
                path = posixpath.join("/", posixpath.dirname(path), entry.target)
            elif entry.kind == "hardlink":
                path = entry.target
            else:
                return self.content(entry)
        raise KeyError(path)

    def content(self, entry: Entry) -> bytes:
        self._spool.seek(entry.offset)
        return self._spool.read(entry.size)

    def paths(self) -> list[str]:
        return sorted(self._entries)

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Every entry in its order: a directory before what is in it, a file before its hard links.

        Of the names of one file the first in the order is the file, and the others its links.
        """
        first: dict[str, str] = {}
        for path in sorted(self._entries, key=lambda path: path.split("/")):
            inode = self._inode(path)
            # A link has the owner and mode of its file: who unpacks it may set them again.
            entry = self._entries[inode]
            if inode in first:
                entry = replace(entry, kind="hardlink", target=first[inode], size=0, offset=0)
            elif entry.kind == "file":
                first[inode] = path
            yield path, entry

    def _inode(self, path: str) -> str:
        """The path of the file that `path` is a name of: itself, or the end of its hard links."""
        for _ in range(_MAX_LINKS):
            entry = self._entries.get(path)
            if entry is None:
                break
            if entry.kind != "hardlink":
                return path
            path = entry.target
        raise CorruptState(f"/{path} is a hard link to nothing")

    def write_tar(self, output: SupportsWrite[bytes], *, newest: int | None = None) -> str:
        """Write a layer to `output`; its SHA-256. No time in it is later than `newest`."""
        import tarfile

        digest = hashlib.sha256()

        def write(content: bytes) -> None:
            digest.update(content)
            output.write(content)

        for path, entry in self.entries():
            if not path:
                continue
            info = tarfile.TarInfo(path)
            info.type = _TYPES[entry.kind]
            info.mode = stat.S_IMODE(entry.mode)
            info.uid, info.gid = entry.uid, entry.gid
            info.mtime = entry.mtime if newest is None else min(entry.mtime, newest)
            info.linkname = entry.target
            info.devmajor, info.devminor = entry.device
            info.size = entry.size
            info.pax_headers = {
                _XATTR + name: value.decode("utf-8", "surrogateescape")
                for name, value in entry.xattrs.items()
            }
            write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
            if entry.size:
                write(self.content(entry))
                write(b"\0" * (-entry.size % tarfile.BLOCKSIZE))
        write(b"\0" * (2 * tarfile.BLOCKSIZE))
        return digest.hexdigest()


_XATTR = "SCHILY.xattr."
_KINDS: dict[bytes, Kind] = {
    b"0": "file", b"\0": "file", b"7": "file", b"1": "hardlink", b"2": "symlink",
    b"3": "char", b"4": "block", b"5": "directory", b"6": "fifo",
}  # fmt: skip
_TYPES: dict[Kind, bytes] = {
    "file": b"0", "hardlink": b"1", "symlink": b"2",
    "char": b"3", "block": b"4", "directory": b"5", "fifo": b"6",
}  # fmt: skip


def _from_tar(member: TarInfo) -> Entry:
    kind = _KINDS.get(member.type)
    if kind is None:
        raise CorruptState(f"{member.name} has an unknown type, {member.type!r}")
    hard, soft = kind == "hardlink", kind == "symlink"
    return Entry(
        kind=kind,
        mode=member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        mtime=int(member.mtime),
        target=_normal(member.linkname) if hard else member.linkname if soft else "",
        device=(member.devmajor, member.devminor) if kind in ("char", "block") else (0, 0),
        xattrs={
            name.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
            for name, value in member.pax_headers.items()
            if name.startswith(_XATTR)
        },
    )


def _normal(name: str) -> str:
    """A member's name as a path below the root. Raises CorruptState."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise CorruptState(f"{name!r} leads out of the root")
    return "/".join(parts)
