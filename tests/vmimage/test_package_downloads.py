"""Downloads over HTTP go on where they stopped."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from wherry.errors import NotFound, RegistryError
from wherry.image.transport import Patience, Transport
from wherry_vmimage.download import Download, Downloader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT under every path, as its fields say."""

    supports_ranges = True
    cut_after: int | None = None  # bytes of the first answer, after which the line is cut
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None]] = []

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        start = 0
        if wanted and self.server.supports_ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        status = 206 if start else self.server.status
        body = CONTENT[start:] if status in (200, 206) else b""
        self.send_response(404 if "missing" in self.path else status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut, self.server.cut_after = self.server.cut_after, None
        self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def downloader(tmp_path: Path) -> Downloader:
    patience = Patience(attempts=3, first=0.01, longest=0.01)
    return Downloader(Transport(patience=patience), str(tmp_path / "cache"))


def read(downloader: Downloader) -> bytes:
    with open(downloader.path(DIGEST), "rb") as file:
        return file.read()


@pytest.mark.parametrize("supports_ranges", [True, False])
def test_lost_connection_is_taken_up_again(
    server: Server, downloader: Downloader, supports_ranges: bool
) -> None:
    server.supports_ranges = supports_ranges
    server.cut_after = 300_000

    downloader.fetch([Download(DIGEST, len(CONTENT), (f"{server.uri}/thing",))])

    assert read(downloader) == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=300000-"]


def test_download_of_an_earlier_process_is_taken_up_again(
    server: Server, downloader: Downloader
) -> None:
    with open(f"{downloader.path(DIGEST)}.partial", "wb") as file:
        file.write(CONTENT[:1000])

    downloader.fetch([Download(DIGEST, len(CONTENT), (f"{server.uri}/thing",))])

    assert read(downloader) == CONTENT
    assert server.asked == [("/thing", "bytes=1000-")]


def test_complete_partial_is_not_asked_for_again(server: Server, downloader: Downloader) -> None:
    with open(f"{downloader.path(DIGEST)}.partial", "wb") as file:
        file.write(CONTENT)

    downloader.fetch([Download(DIGEST, len(CONTENT), (f"{server.uri}/thing",))])

    assert read(downloader) == CONTENT
    assert server.asked == []


def test_next_address_is_tried_where_the_first_has_nothing(
    server: Server, downloader: Downloader
) -> None:
    uris = (f"{server.uri}/missing", f"{server.uri}/thing")

    downloader.fetch([Download(DIGEST, len(CONTENT), uris)])

    assert [path for path, _ in server.asked] == ["/missing", "/thing"]


def test_file_is_fetched_once_by_many_at_a_time(server: Server, downloader: Downloader) -> None:
    download = Download(DIGEST, len(CONTENT), (f"{server.uri}/thing",))

    downloader.fetch([download] * 8)

    assert len(server.asked) == 1


def test_nothing_is_asked_for_what_is_there(server: Server, downloader: Downloader) -> None:
    download = Download(DIGEST, len(CONTENT), (f"{server.uri}/thing",))
    downloader.fetch([download])
    server.asked.clear()

    downloader.fetch([download])

    assert server.asked == []


def test_refusal_is_an_error_without_the_password(server: Server, downloader: Downloader) -> None:
    server.status = 403
    uri = server.uri.replace("://", "://me:secret@") + "/thing"

    with pytest.raises(RegistryError, match="answered 403") as error:
        downloader.fetch([Download(DIGEST, len(CONTENT), (uri,))])

    assert "secret" not in str(error.value)


def test_missing_file_is_an_error(server: Server, downloader: Downloader) -> None:
    with pytest.raises(NotFound, match="/missing is not there"):
        downloader.read(f"{server.uri}/missing")
