"""Object files made in memory: what a kernel module is, to who reads it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SYMBOLS, _STRINGS, _DYNAMIC, _BITS = 2, 3, 6, 1


def make_module(info: Iterable[str], exports: Iterable[str] = ()) -> bytes:
    """A kernel module with these lines of .modinfo, which exports these symbols."""
    strings = b"\0" + b"".join(f"__ksymtab_{name}".encode() + b"\0" for name in exports)
    symbols, position = bytes(24), 1
    for name in exports:
        symbols += struct.pack("<IBBHQQ", position, 0, 0, 1, 0, 0)
        position += len(f"__ksymtab_{name}") + 1
    modinfo = b"".join(line.encode() + b"\0" for line in info)
    return make_elf(
        {
            ".modinfo": (_BITS, modinfo),
            ".symtab": (_SYMBOLS, symbols),
            ".strtab": (_STRINGS, strings),
        },
        link={".symtab": ".strtab"},
    )


def make_program(needs: Iterable[str]) -> bytes:
    """A program that is linked with these libraries."""
    strings, dynamic = b"\0", b""
    for name in needs:
        dynamic += struct.pack("<qQ", 1, len(strings))
        strings += name.encode() + b"\0"
    return make_elf(
        {".dynamic": (_DYNAMIC, dynamic + bytes(16)), ".dynstr": (_STRINGS, strings)},
        link={".dynamic": ".dynstr"},
    )


def make_elf(sections: Mapping[str, tuple[int, bytes]], link: Mapping[str, str]) -> bytes:
    names = ["", *sections, ".shstrtab"]
    table = b"".join(name.encode() + b"\0" for name in names)
    contents = [(0, b""), *sections.values(), (_STRINGS, table)]
    body, headers, name_at = b"", b"", 0
    for name, (kind, content) in zip(names, contents, strict=True):
        linked = names.index(link[name]) if name in link else 0
        headers += struct.pack(
            "<IIQQQQIIQQ", name_at, kind, 0, 0, 64 + len(body), len(content), linked, 0, 1, 0
        )
        name_at += len(name) + 1
        body += content
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack(
        "<HHIQQQIHHHHHH",
        1,
        62,
        1,
        0,
        0,
        64 + len(body),
        0,
        64,
        0,
        0,
        64,
        len(names),
        len(names) - 1,
    )
    return head + body + headers
