"""Owners and modes that a container gave files of the host, which could not be given them.

Who serves a share is a user of the host: it cannot give its files away, and must not set
their set-user-id bits. What a container asked for is kept beside the file, and is what
containers see from then on: in an extended attribute where the system and the file have
such, and otherwise in a table of the machine's, by path and file number. A file that says
nothing is root's, with the mode that it has on the host.
"""

from __future__ import annotations

import os
import sys
import threading

from wherry.errors import CorruptState

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from typing import NamedTuple

    class Owner(NamedTuple):
        uid: int
        gid: int
        bits: int

else:
    from collections import namedtuple

    Owner = namedtuple("Owner", ("uid", "gid", "bits"))

ROOT = Owner(0, 0, 0)

SPECIAL_BITS = 0o7000
"""Of a mode: set-user-id, set-group-id, sticky. The host's file never gets these."""

_ATTRIBUTE = "user.wherry.owner"

_SCHEMA = """\
create table if not exists owners (path blob primary key, number integer, owner text);
pragma journal_mode = wal;
pragma synchronous = off;
"""


class Owners:
    """The owners of the files of one share, whose root is the directory `root`.

    `table` is the file for those that have no room beside the file. Paths are below the root.
    """

    def __init__(self, table: str, root: str) -> None:
        self._path = table
        self._root = os.fsencode(root)
        self._lock = threading.Lock()
        self._table: sqlite3.Connection | None = None
        self._rows = 0
        if os.path.exists(table):
            self._open()

    def get(self, pinned: str, path: bytes, status: os.stat_result) -> Owner:
        """Whose a file is. `pinned` names it in a way that nobody can change, or is ""."""
        if pinned and (found := _read_attribute(pinned)) is not None:
            return found
        if not self._rows:
            return ROOT
        with self._lock:
            row = self._execute("select number, owner from owners where path = ?", path).fetchone()
        return _parse(row[1]) if row and row[0] == status.st_ino else ROOT

    def set(self, pinned: str, path: bytes, status: os.stat_result, owner: Owner) -> None:
        """Keep whose a file is."""
        written = f"{owner.uid}:{owner.gid}:{owner.bits:o}"
        if pinned and _write_attribute(pinned, written):
            return
        with self._lock:
            self._open()
            self._execute(
                "insert or replace into owners values (?, ?, ?)", path, status.st_ino, written
            )
            self._rows += 1

    def moved(self, old: bytes, new: bytes) -> None:
        """A file or directory has another path now."""
        self.removed(new)
        if not self._rows:
            return
        with self._lock:
            self._execute(
                "update or replace owners set path = cast(? || substr(path, ?) as blob) "
                "where path = ? or substr(path, 1, ?) = ?",
                self._key(new), len(self._key(old)) + 1, self._key(old),
                len(self._key(old)) + 1, self._key(old) + b"/", keyed=False,
            )  # fmt: skip

    def removed(self, path: bytes) -> None:
        """There is no such file any more."""
        if self._rows:
            with self._lock:
                self._execute("delete from owners where path = ?", path)

    def close(self) -> None:
        if self._table is not None:
            self._table.close()

    def _key(self, path: bytes) -> bytes:
        return self._root + b"/" + path.strip(b"/")

    def _execute(self, statement: str, *values: object, keyed: bool = True) -> sqlite3.Cursor:
        assert self._table is not None
        if keyed and isinstance(values[0], bytes):
            values = (self._key(values[0]), *values[1:])
        return self._table.execute(statement, values)

    def _open(self) -> None:
        if self._table is None:
            import sqlite3

            self._table = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            try:
                self._table.executescript(_SCHEMA)
                self._rows = self._table.execute("select count(*) from owners").fetchone()[0]
            except sqlite3.DatabaseError as error:
                self._table.close()
                raise CorruptState(
                    f"{self._path} is damaged: {error}",
                    hint="without it the files of shares have the owners of the host again",
                ) from error


def _parse(text: str | bytes) -> Owner:
    try:
        uid, gid, bits = text.split(":") if isinstance(text, str) else text.decode().split(":")
        return Owner(int(uid), int(gid), int(bits, 8) & 0o17777)
    except ValueError:
        return ROOT


if sys.platform == "linux":

    def _read_attribute(path: str) -> Owner | None:
        try:
            return _parse(os.getxattr(path, _ATTRIBUTE))
        except OSError:
            return None

    def _write_attribute(path: str, text: str) -> bool:
        try:
            os.setxattr(path, _ATTRIBUTE, text.encode())
        except OSError:
            return False
        return True

else:
    # Python has no call for them elsewhere that cannot be led astray by a link.
    def _read_attribute(_: str) -> Owner | None:
        return None

    def _write_attribute(_: str, __: str) -> bool:
        return False
