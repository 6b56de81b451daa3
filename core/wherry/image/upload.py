"""Blobs on their way into a registry: mounted, sent in one request, or in chunks.

Chunks are taken up again where the registry says that it has them; a session that it
has forgotten begins anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urljoin  # noqa: TID253

from wherry.errors import CorruptState, RegistryError
from wherry.image.auth import pull_scopes, push_scopes
from wherry.image.transport import Interrupted
from wherry.words import read_natural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from urllib3 import BaseHTTPResponse

    from wherry.image.reference import Reference
    from wherry.image.registry import Registry

_PIECE = 1 << 18
# Up to here a blob goes in one request.
_MONOLITHIC = 1 << 20


def upload_blob(
    registry: Registry,
    reference: Reference,
    digest: str,
    size: int,
    open_source: Callable[[], BinaryIO],
    *,
    mount_from: str | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> bool:
    """Bring a blob into a repository; True where the registry took it from `mount_from`."""
    upload = _Upload(registry, reference, digest, size)
    if upload.begin(mount_from):
        return True
    upload.send(open_source, on_progress or _say_nothing)
    return False


def mount_blob(registry: Registry, reference: Reference, digest: str, source: str) -> bool:
    """Have a blob of the repository `source` in `reference`'s; False where that cannot be."""
    if registry.has_blob(reference, digest):
        return True
    return _Upload(registry, reference, digest, 0).begin(source)


class _Upload:
    """One blob on its way up; what the registry already has is not sent again."""

    def __init__(self, registry: Registry, reference: Reference, digest: str, size: int) -> None:
        self._registry = registry
        self._reference = reference
        self._digest = digest
        self._size = size
        self._scopes = push_scopes(reference.path)
        self._location = ""
        self._chunk = registry.chunk_size

    def begin(self, mount_from: str | None) -> bool:
        """Open a session; True where none is needed, for the blob could be mounted."""
        path = f"/v2/{self._reference.path}/blobs/uploads/"
        scopes = self._scopes
        if mount_from:
            scopes |= pull_scopes(mount_from)
            path += "?" + urlencode({"mount": self._digest, "from": mount_from})
        response = self._registry.call("POST", path, scopes, body=b"")
        if mount_from and response.status in (401, 403, 404, 405):
            # The other repository may be none of ours.
            response.drain_conn()
            return self.begin(None)
        name = self._reference.familiar_name
        self._registry.expect(response, (201, 202), f"cannot push to {name}", self._reference)
        response.drain_conn()
        if response.status == 201 and mount_from:
            return True
        self._follow(response, self._registry.url(path))
        return False

    def _follow(self, response: BaseHTTPResponse, asked: str) -> None:
        """Go on where the answer says, in chunks as large as it wants them."""
        target = response.headers.get("Location")
        if not target:
            raise RegistryError(f"{self._registry.host} names no place to upload to")
        self._location = urljoin(asked, target)
        least = read_natural(response.headers.get("OCI-Chunk-Min-Length", ""))
        self._chunk = max(self._chunk, least)

    def send(self, open_source: Callable[[], BinaryIO], on_progress: Callable[[int], None]) -> None:
        monolithic = self._size <= _MONOLITHIC
        offset = furthest = failures = 0
        with open_source() as source:
            while True:
                try:
                    if not monolithic and offset < self._size:
                        offset = self._patch(source, offset, on_progress)
                        if offset > furthest:
                            furthest, failures = offset, 0
                        continue
                    self._close(source if monolithic else None)
                    on_progress(self._size)
                    return
                except Interrupted as error:
                    failures += 1
                    if failures >= self._registry.transport.patience.attempts:
                        raise
                    self._registry.transport.pause(failures - 1, error.message)
                    kept = self._status()
                    if kept is None or (monolithic and kept):
                        # Forgotten, or with a part of what goes in one request only.
                        self.begin(None)
                        kept = 0
                    offset = kept

    def _patch(self, source: BinaryIO, offset: int, on_progress: Callable[[int], None]) -> int:
        length = min(self._chunk, self._size - offset)
        response = self._registry.call(
            "PATCH",
            self._location,
            self._scopes,
            {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(length),
                "Content-Range": f"{offset}-{offset + length - 1}",
            },
            lambda: _pieces(source, offset, length, on_progress),
        )
        if response.status == 416 or response.status >= 500 or response.status == 429:
            response.drain_conn()
            raise Interrupted(f"{self._registry.host} answered {response.status}")
        self._expect(response, (201, 202, 204))
        response.drain_conn()
        self._follow(response, self._location)
        return offset + length

    def _close(self, source: BinaryIO | None) -> None:
        """End the upload: the registry verifies the digest. `source` is all of it, or None."""
        length = self._size if source else 0
        mark = "&" if "?" in self._location else "?"
        response = self._registry.call(
            "PUT",
            f"{self._location}{mark}digest={quote(self._digest, safe='')}",
            self._scopes,
            {"Content-Type": "application/octet-stream", "Content-Length": str(length)},
            (lambda: _pieces(source, 0, length, _say_nothing)) if source else b"",
        )
        if source and (response.status >= 500 or response.status == 429):
            response.drain_conn()
            raise Interrupted(f"{self._registry.host} answered {response.status}")
        self._expect(response, (201, 204))
        response.drain_conn()

    def _status(self) -> int | None:
        """How many bytes the registry has; None where the session is gone."""
        response = self._registry.call("GET", self._location, self._scopes)
        response.drain_conn()
        if response.status not in (200, 202, 204):
            return None
        if response.headers.get("Location"):
            self._follow(response, self._location)
        first, dash, last = response.headers.get("Range", "").rpartition("=")[2].partition("-")
        # An empty session says `0-0`, which one of one byte would say as well.
        end = read_natural(last) if dash and first == "0" else 0
        return end + 1 if end > 0 else 0

    def _expect(self, response: BaseHTTPResponse, statuses: tuple[int, ...]) -> None:
        self._registry.expect(response, statuses, f"cannot push {self._digest}", self._reference)


def _say_nothing(sent: int) -> None:
    """Where nobody watches an upload."""


def _pieces(
    source: BinaryIO, offset: int, length: int, on_progress: Callable[[int], None]
) -> Iterator[bytes]:
    source.seek(offset)
    end = offset + length
    while offset < end:
        piece = source.read(min(_PIECE, end - offset))
        if not piece:
            raise CorruptState("a blob became shorter while it was sent")
        yield piece
        offset += len(piece)
        on_progress(offset)
