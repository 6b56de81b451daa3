"""Object files: as much of them as tells what a module says and what a program needs."""

from __future__ import annotations

import posixpath
import struct
from typing import TYPE_CHECKING, NamedTuple

from wherry.errors import CorruptState, NotFound

if TYPE_CHECKING:
    from wherry_vmimage.tree import Tree

ELF_MAGIC = b"\x7fELF"


class _Section(NamedTuple):
    name_at: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int


class Elf:
    """The sections of a 64-bit little-endian object file. Raises CorruptState."""

    _HEADER = struct.Struct("<IIQQQQIIQQ")
    _SYMBOL = struct.Struct("<IBBHQQ")
    _DYNAMIC = struct.Struct("<qQ")
    _SYMBOL_TABLE, _DYNAMIC_TABLE = 2, 6
    _NEEDED = 1

    def __init__(self, content: bytes) -> None:
        self._content = content
        if content[:6] != b"\x7fELF\x02\x01":
            raise CorruptState("it is not a 64-bit object file")
        (start,) = struct.unpack_from("<Q", content, 40)
        size, count, names = struct.unpack_from("<HHH", content, 58)
        try:
            self._sections = [
                _Section(*self._HEADER.unpack_from(content, start + size * i)) for i in range(count)
            ]
            self._names = self._bytes(self._sections[names])
        except (struct.error, IndexError) as error:
            raise CorruptState(f"it is damaged: {error}") from error

    def _bytes(self, section: _Section) -> bytes:
        return self._content[section.offset : section.offset + section.size]

    def section(self, name: str) -> bytes:
        for section in self._sections:
            if _string(self._names, section.name_at) == name:
                return self._bytes(section)
        return b""

    def exports(self) -> list[str]:
        """The symbols with a mark of EXPORT_SYMBOL beside them."""
        found = []
        for section in self._sections:
            if section.kind != self._SYMBOL_TABLE:
                continue
            strings = self._bytes(self._sections[section.link])
            for name_at, *_ in self._SYMBOL.iter_unpack(self._bytes(section)):
                if strings.startswith(b"__ksymtab_", name_at):
                    found.append(_string(strings, name_at + len(b"__ksymtab_")))
        return sorted(found)

    def needs(self) -> list[str]:
        """The names of the shared libraries that it is linked with."""
        found = []
        for section in self._sections:
            if section.kind != self._DYNAMIC_TABLE:
                continue
            strings = self._bytes(self._sections[section.link])
            for tag, value in self._DYNAMIC.iter_unpack(self._bytes(section)):
                if tag == self._NEEDED:
                    found.append(_string(strings, value))
        return found


def _string(table: bytes, start: int) -> str:
    return table[start : table.index(b"\0", start)].decode()


def require_libraries(tree: Tree) -> None:
    """Raise NotFound where a program or library in `tree` is linked with what is not there."""
    names = {posixpath.basename(path) for path in tree.paths()}
    for path in tree.paths():
        entry = tree.get(path)
        if entry is None or entry.kind != "file" or path.endswith(".ko"):
            continue
        content = tree.content(entry)
        if not content.startswith(ELF_MAGIC):
            continue
        for library in Elf(content).needs():
            if library not in names:
                raise NotFound(f"/{path} needs {library}, which no package of the guest has")
