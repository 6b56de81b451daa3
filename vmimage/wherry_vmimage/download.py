"""Downloads that are what their digest says, several at a time, kept by digest."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wherry import paths
from wherry.errors import CorruptState, NotFound, RegistryError
from wherry.files import Lock, make_dir, remove_file, storage_error
from wherry_vmimage.uri import Uri, parse_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from urllib3 import BaseHTTPResponse

    from wherry.image.transport import Transport

_PARALLEL = 6
_CHUNK = 1 << 18
# Far above any Release file; a server may send anything before there is a digest to hold it to.
_MAX_UNVERIFIED = 64 << 20


@dataclass(frozen=True)
class Download:
    """A file of known digest, and the addresses to ask for it in turn."""

    sha256: str
    size: int
    uris: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.uris[-1].rpartition("/")[2]


class Downloader:
    """Fetches into a directory where each file is named by its digest."""

    def __init__(self, transport: Transport, directory: str | None = None) -> None:
        self._transport = transport
        self._directory = make_dir(directory or os.path.join(paths.cache(), "packages"))

    def path(self, sha256: str) -> str:
        return os.path.join(self._directory, sha256)

    def forget(self, download: Download) -> None:
        remove_file(self.path(download.sha256))

    def read(self, uri: str) -> bytes:
        """A small file whose digest nobody knows. Raises NotFound where it is not there."""
        content = b"".join(self._chunks(uri, 0, _MAX_UNVERIFIED))
        if len(content) >= _MAX_UNVERIFIED:
            raise CorruptState(f"{parse_uri(uri).public} has more than {_MAX_UNVERIFIED >> 20} MB")
        return content

    def fetch(
        self, downloads: Iterable[Download], progress: Callable[[Download], None] | None = None
    ) -> None:
        """Have every one of `downloads` at its `path`; `progress` is told of each that arrived."""
        missing = [d for d in downloads if not os.path.exists(self.path(d.sha256))]
        with ThreadPoolExecutor(_PARALLEL) as pool:
            try:
                for download in pool.map(self._fetch_one, missing):
                    if progress:
                        progress(download)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _fetch_one(self, download: Download) -> Download:
        target = self.path(download.sha256)
        partial = f"{target}.partial"
        try:
            # Held by one thread of one process: the others wait, and then find the file.
            with Lock(partial):
                if not os.path.exists(target):
                    self._fetch_any(download, partial)
                    os.replace(partial, target)
                else:
                    # Made by opening it, or by another that waited and came too late as well.
                    remove_file(partial)
        except OSError as error:
            raise storage_error(error, f"keep {download.name} in {self._directory}") from error
        return download

    def _fetch_any(self, download: Download, partial: str) -> None:
        for uri in download.uris:
            try:
                self._fetch_from(uri, download, partial)
            except NotFound:
                if uri == download.uris[-1]:
                    raise
            else:
                return

    def _fetch_from(self, uri: str, download: Download, partial: str) -> None:
        from wherry.image.transport import Interrupted

        attempt = 0
        while True:
            try:
                self._fetch_rest(uri, download, partial)
            except Interrupted as error:
                attempt += 1
                if attempt >= self._transport.patience.attempts:
                    raise
                self._transport.pause(attempt, error.message)
            else:
                return

    def _fetch_rest(self, uri: str, download: Download, partial: str) -> None:
        """Fetch what `partial` lacks, and hold all of it against the digest."""
        digest = hashlib.sha256()
        with open(partial, "r+b") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
            offset = file.tell()
            if offset > download.size:
                offset, digest = 0, hashlib.sha256()
            file.seek(offset)
            file.truncate()
            # One byte more than is right tells a file that is too long.
            for chunk in self._chunks(uri, offset, download.size - offset + 1):
                digest.update(chunk)
                file.write(chunk)
            size = file.tell()
            if size != download.size or digest.hexdigest() != download.sha256:
                file.truncate(0)
                raise CorruptState(
                    f"{parse_uri(uri).public} is not what the archive's index says: "
                    + (
                        f"{size} bytes instead of {download.size}"
                        if size != download.size
                        else f"digest mismatch, sha256 {digest.hexdigest()} "
                        f"instead of {download.sha256}"
                    ),
                    hint="the mirror may be in the middle of an update: try again later",
                )

    def _chunks(self, uri: str, offset: int, limit: int) -> Iterator[bytes]:
        """At most `limit` bytes of `uri` after the first `offset`."""
        address = parse_uri(uri)
        if address.scheme == "file":
            yield from _file_chunks(address.path, offset, limit)
            return
        if limit <= 1 and offset:
            return
        response = self._open(address, offset)
        try:
            skip = offset if offset and response.status == 200 else 0
            left = limit
            for chunk in _body(response, address.host):
                if skip:
                    chunk, skip = chunk[skip:], max(0, skip - len(chunk))
                yield chunk[:left]
                left -= len(chunk)
                if left <= 0:
                    break
        finally:
            # The rest of an answer is of no use to anybody.
            response.close()
            response.release_conn()

    def _open(self, address: Uri, offset: int) -> BaseHTTPResponse:
        from urllib3.util import make_headers

        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if address.login:
            headers |= make_headers(basic_auth=address.login)
        response = self._transport.request("GET", address.public, headers)
        if response.status in (200, 206):
            return response
        response.drain_conn()
        if response.status in (404, 410):
            raise NotFound(f"{address.public} is not there ({response.status})")
        raise RegistryError(f"{address.host} answered {response.status} for {address.public}")


def _body(response: BaseHTTPResponse, host: str) -> Iterator[bytes]:
    from wherry.image.transport import http_errors

    with http_errors(host):
        yield from response.stream(_CHUNK)


def _file_chunks(path: str, offset: int, limit: int) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            while limit > 0 and (chunk := file.read(min(_CHUNK, limit))):
                limit -= len(chunk)
                yield chunk
    except FileNotFoundError:
        raise NotFound(f"{path} is not there") from None
