"""What a layer is, told without making it: its headers, and digests of what its files hold.

Layers of one outline have the same tar stream, and so the same diff id; but the times of
directories that changes only go through tell nothing: the last RUN has moved them, or the
clock. Where nothing may be younger than some moment they count, too.
"""

from __future__ import annotations

from hashlib import sha256

from wherry.image import tar
from wherry.image.tar import Member

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Contents(Protocol):
        """Digests of what files hold: of large ones they may have been remembered."""

        def digest(self, descriptor: int, /) -> str:
            """What an open file holds, which is read if need be."""

        def known(self, descriptor: int, /) -> str:
            """The same, where the file need not be read; "" otherwise."""


class Outline:
    """The outline of one layer; a stream that a Packer writes to."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._digest = sha256()
        self._is_whole = True

    def add(self, member: Member, descriptor: int = -1, *, on_way: bool = False) -> None:
        """Append a member; a file is read if need be."""
        content = self._contents.digest(descriptor) if member.size else ""
        self.note(member, tar.header_of(member), content, on_way=on_way)

    def note(self, member: Member, header: bytes, content: str, *, on_way: bool = False) -> None:
        """Append a member of which these are known; a file whose digest is "" spoils it all."""
        if on_way:
            header = tar.header_of(_timeless(member))
        self._digest.update(header)
        self._digest.update(content.encode())
        self._is_whole &= bool(content) or not member.size

    def finish(self) -> str:
        """What it comes to; "" where that cannot be told."""
        return self._digest.hexdigest() if self._is_whole else ""


def _timeless(member: Member) -> Member:
    return Member(
        member.name,
        member.type,
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        xattrs=member.xattrs,
    )
