"""Layers that are made in memory, and unpacked."""

from __future__ import annotations

import importlib
import io
import os
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Entry = tuple[tarfile.TarInfo, bytes]

CHARACTER, DIRECTORY, FIFO, LINK, SYMLINK = (
    tarfile.CHRTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
)


def entry(
    name: str,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o755,
    uid: int | None = None,
    gid: int | None = None,
    mtime: float = 0,
    linkname: str = "",
    device: tuple[int, int] = (0, 0),
    pax: Mapping[str, str] | None = None,
) -> Entry:
    """A member of a layer, this user's where no owner is given."""
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.linkname = kind, mode, linkname
    own_uid, own_gid = (getattr(os, name, lambda: 0)() for name in ("geteuid", "getegid"))
    member.uid = own_uid if uid is None else uid
    member.gid = own_gid if gid is None else gid
    member.mtime = mtime
    member.devmajor, member.devminor = device
    member.size = len(content)
    member.pax_headers = dict(pax or {})
    return member, content


def layer(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> bytes:
    """An uncompressed layer."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=form, errors="surrogateescape") as archive:
        for member, content in entries:
            archive.addfile(member, io.BytesIO(content))
    return output.getvalue()


def unpack(
    root: Path,
    *entries: Entry,
    form: int = tarfile.PAX_FORMAT,
    raw: bytes | None = None,
    read: Callable[[int], bytes] | None = None,
) -> tuple[int, list[str]]:
    """Unpack a layer of `entries` (or `raw`, or what `read` gives) into `root`."""
    # By name: the module is there for Linux alone, this one is read on every system.
    unpacking = importlib.import_module("wherry.image.unpack")

    unpacker = unpacking.Unpacker(str(root))
    whole = layer(*entries, form=form) if raw is None else raw
    size = unpacker.unpack(read or io.BytesIO(whole).read)
    return size, unpacker.warnings
