"""A context as one host tells another: what it holds, without contents.

Where a build is carried out elsewhere, as in a machine, its standard input has

    the offer     JSON, after its length in eight bytes: see `wherry.builder.sending`
    contents      of the files that the build asks for, one after the other, each in pieces
                  with their length in four bytes before them, up to a piece without any; or
                  the length FAILED, and what went wrong in the place of the next piece

and the build asks by `wherry.origin`: {"ask": "files", "context": n, "files": [[first, last], …]},
where files are counted as they are offered.
"""

from __future__ import annotations

import os
import stat
import sys

from wherry.container.archive import attributes
from wherry.container.archive_by_path import MOUNT_POINT
from wherry.errors import UsageError
from wherry.image.digests import file_digest
from wherry.values import replace, value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from wherry.builder.ignore import Ignore

FAILED = 0xFFFF_FFFF

FILE, DIRECTORY, LINK, PIPE = "file", "directory", "link", "pipe"
# Another name of a file that is listed before.
HARD_LINK = "hard link"


@value
class Entry:
    """One name in a context."""

    # Below the context, with slashes.
    path: str
    kind: str
    mode: int
    size: int = 0
    mtime_ns: int = 0
    # Tells of changes that kept size and time; 0 where no time says that.
    ctime_ns: int = 0
    # Where a link leads to: a path of the context, where it is a hard one.
    target: str = ""
    # Of a file that was fetched for this build alone, so that its times tell nothing.
    digest: str = ""
    # Extended attributes, and what they hold in hexadecimal.
    notes: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> list[Any]:
        """The entry as a JSON list."""
        return [
            self.path, self.kind, self.mode, self.size, self.mtime_ns, self.ctime_ns, self.target,
            self.digest, [list(note) for note in self.notes],
        ]  # fmt: skip

    def has_content_of(self, other: Entry) -> bool:
        """Whether two files hold the same, as far as that can be told."""
        if self.digest or other.digest:
            return self.digest == other.digest
        return self == other

    @classmethod
    def from_json(cls, fields: list[Any]) -> Entry:
        """The entry of a JSON list."""
        path, kind, mode, size, mtime_ns, ctime_ns, target, digest, notes = fields
        return cls(
            path=path,
            kind=kind,
            mode=mode,
            size=size,
            mtime_ns=mtime_ns,
            ctime_ns=ctime_ns,
            target=target,
            digest=digest,
            notes=tuple((name, text) for name, text in notes) if notes else (),
        )


def list_context(directory: str, ignore: Ignore, *, with_digests: bool = False) -> list[Entry]:
    """What a context holds but for what is ignored: directories before what is in them.

    Raises UsageError for what cannot be read.
    """
    try:
        entries = list(_list(directory, "", ignore, {}))
        if with_digests:
            entries = [_with_digest(directory, each) for each in entries]
        return entries
    except OSError as error:
        raise UsageError(
            f"error checking context: can't read {error.filename}: {error.strerror}"
        ) from error


def _with_digest(directory: str, entry: Entry) -> Entry:
    if entry.kind != FILE:
        return entry
    with open(f"{directory}/{entry.path}", "rb", buffering=0) as file:
        return replace(entry, digest=file_digest(file.fileno()))


def _list(
    directory: str, above: str, ignore: Ignore, linked: dict[tuple[int, int], str]
) -> Iterator[Entry]:
    """`linked` has the first names of files that have several, by device and inode."""
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda each: each.name)
    for each in entries:
        path = f"{above}/{each.name}" if above else each.name
        is_out = bool(ignore) and ignore.excludes(path)
        is_directory = each.is_dir(follow_symlinks=False) and not _is_junction(each)
        if is_out and not (is_directory and ignore.may_hold(path)):
            continue
        entry = _entry(each, path, linked)
        below = list(_list(each.path, path, ignore, linked)) if is_directory else []
        if entry is not None and (below or not is_out):
            yield entry
            yield from below


def _entry(found: os.DirEntry[str], path: str, linked: dict[tuple[int, int], str]) -> Entry | None:
    """None for a socket or a device, which no image has from a context."""
    status = found.stat(follow_symlinks=False)
    kind = status.st_mode
    if stat.S_ISLNK(kind) or _is_junction(found):
        target = _target(found.path)
        return Entry(path=path, kind=LINK, mode=0o777, mtime_ns=status.st_mtime_ns, target=target)
    if stat.S_ISDIR(kind):
        return Entry(
            path=path,
            kind=DIRECTORY,
            mode=_mode(kind),
            mtime_ns=status.st_mtime_ns,
            notes=_notes(found.path),
        )
    if stat.S_ISFIFO(kind):
        return Entry(path=path, kind=PIPE, mode=_mode(kind), mtime_ns=status.st_mtime_ns)
    if not stat.S_ISREG(kind):
        return None
    if status.st_nlink > 1:
        first = linked.setdefault((status.st_dev, status.st_ino), path)
        if first != path:
            return Entry(path=path, kind=HARD_LINK, mode=0, target=first)
    return Entry(
        path=path,
        kind=FILE,
        mode=_mode(kind),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=0 if sys.platform == "win32" else status.st_ctime_ns,
        notes=_notes(found.path),
    )


def _notes(path: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, content.hex()) for name, content in sorted(attributes(path).items()))


def _is_junction(found: os.DirEntry[str]) -> bool:
    """Whether it is a link of Windows' to a directory, which stat(2) takes for the directory."""
    status = found.stat(follow_symlinks=False)
    return getattr(status, "st_reparse_tag", 0) == MOUNT_POINT


def _target(path: str) -> str:
    """Where a link leads, in the words of Linux."""
    target = os.readlink(path)
    if sys.platform != "win32":
        return target
    target = target.removeprefix("\\\\?\\")
    if os.path.isabs(target):
        # No other system knows a drive. What leads out of the context leads nowhere.
        try:
            target = os.path.relpath(target, os.path.dirname(path))
        except ValueError:
            pass
    return target.replace("\\", "/")


def _mode(mode: int) -> int:
    # Windows tells of no such bits: a program that lost its own could not run.
    return 0o755 if sys.platform == "win32" else stat.S_IMODE(mode)


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Ascending numbers as [first, last] of each run."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found
