"""A .deb, read without any tool: an ar archive of two tar archives (deb(5))."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from wherry.errors import CorruptState, Unsupported
from wherry_vmimage.control import parse_paragraph

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC = b"!<arch>\n"
_HEADER = 60


@dataclass(frozen=True)
class Deb:
    """The parts of a package, its data unpacked but not read."""

    control: dict[str, str]
    scripts: dict[str, bytes]  # everything of control.tar besides `control`
    data: bytes  # data.tar, without its compression

    @cached_property
    def conffiles(self) -> list[str]:
        lines = self.scripts.get("conffiles", b"").decode().splitlines()
        # "remove-on-upgrade /path" names a file that this version does not have any more.
        return [line.strip() for line in lines if line.startswith("/")]


def ar_members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The members of an ar archive. Raises CorruptState."""
    if not content.startswith(_MAGIC):
        raise CorruptState("it is not an ar archive")
    position = len(_MAGIC)
    while position < len(content):
        header = content[position : position + _HEADER]
        if len(header) != _HEADER or header[58:] != b"`\n":
            raise CorruptState("a member's header is damaged")
        try:
            size = int(header[48:58])
        except ValueError:
            raise CorruptState("a member's header is damaged") from None
        position += _HEADER
        if size < 0 or position + size > len(content):
            raise CorruptState("it ends within a member")
        yield (
            header[:16].decode("ascii", "replace").rstrip(" ").rstrip("/"),
            content[position : position + size],
        )
        position += size + size % 2


def read_deb(content: bytes) -> Deb:
    """The package in `content`. Raises CorruptState."""
    import tarfile

    # Members whose names begin with "_" are not for us (deb(5)).
    members = [member for member in ar_members(content) if not member[0].startswith("_")]
    names = [name for name, _ in members]
    if (
        len(names) < 3
        or names[0] != "debian-binary"
        or not names[1].startswith("control.tar")
        or not names[2].startswith("data.tar")
    ):
        raise CorruptState(f"it is no Debian package: its members are {', '.join(names)}")
    if not members[0][1].startswith(b"2."):
        raise Unsupported(
            f"its format is {members[0][1].decode(errors='replace').strip()}, not 2.0"
        )
    try:
        with tarfile.open(fileobj=io.BytesIO(decompress(*members[1]))) as tar:
            scripts = {
                member.name.removeprefix("./"): file.read()
                for member in tar
                if (file := tar.extractfile(member)) is not None
            }
        control = parse_paragraph(scripts.pop("control").decode())
    except (tarfile.TarError, KeyError, UnicodeDecodeError) as error:
        raise CorruptState(f"its control archive is damaged: {error}") from error
    return Deb(control, scripts, decompress(*members[2]))


def decompress(name: str, content: bytes) -> bytes:
    """`content` without the compression that its name tells. Raises CorruptState."""
    import zstandard

    ending = name.rpartition(".")[2]
    try:
        match ending:
            case "tar":
                return content
            case "xz" | "lzma":
                return lzma.decompress(content)
            case "gz":
                return gzip.decompress(content)
            case "zst":
                with zstandard.ZstdDecompressor().stream_reader(
                    content, read_across_frames=True
                ) as r:
                    return r.read()
            case "bz2":
                return bz2.decompress(content)
    except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError) as error:
        raise CorruptState(f"its {name} is damaged: {error}") from error
    raise Unsupported(f"its {name} is compressed in a way that is not known here")
