"""`ADD` of what is elsewhere is fetched again only where it may have changed."""

from __future__ import annotations

import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from support.building import build, context, repository, run
from support.settings import on_linux

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from support.building import Build
    from support.cli import Cli

__all__ = ["build", "context"]

# A machine does not reach servers of this host's loopback.
pytestmark = on_linux

OLD = {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}


class WebServer(ThreadingHTTPServer):
    """One file, with the headers that a test says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = b"first\n"
        self.headers: Mapping[str, str] = {}
        self.statuses = {"HEAD": 200, "GET": 200}
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/dir/file?x=1"


class _Handler(BaseHTTPRequestHandler):
    server: WebServer

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.command)
        known = {self.headers["If-None-Match"], self.headers["If-Modified-Since"]} - {None}
        is_known = bool(known & {*server.headers.values()})
        self.send_response(304 if is_known else server.statuses[self.command])
        for name, text in server.headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(server.content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(server.content)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize("headers", [{"ETag": '"one"'}, {"ETag": 'W/"one"'}, OLD])
def test_what_a_server_calls_unchanged_is_not_fetched_again(
    wherry: Cli, build: Build, web: WebServer, headers: dict[str, str]
) -> None:
    web.headers = headers
    text = f"FROM busybox\nADD {web.url} /got\n"
    build(text, "-t", "made")
    again = build(text, "-t", "made")

    assert web.asked == ["GET", "HEAD"]
    assert again.stderr.count("CACHED") == 2
    assert run(wherry, "made", "cat", "/got") == "first\n"

    web.content, web.headers = b"second\n", {"ETag": '"two"'}
    build(text, "-t", "made")

    assert web.asked == ["GET", "HEAD", "HEAD", "GET"]
    assert run(wherry, "made", "cat", "/got") == "second\n"


def test_a_file_of_a_web_server_is_a_context(wherry: Cli, build: Build, web: WebServer) -> None:
    """As with BuildKit it is the file, whatever is in it."""
    text = "FROM busybox\nCOPY --from=web file /got\n"
    named = ("--build-context", f"web={web.url}")
    build(text, "-t", "made", *named)
    assert run(wherry, "made", "cat", "/got") == "first\n"
    assert "CACHED" in build(text, *named).stderr.split("COPY --from=web")[1]

    web.content = b"second\n"
    build(text, "-t", "made", *named)
    assert run(wherry, "made", "cat", "/got") == "second\n"

    web.statuses["GET"] = 404
    failed = build(text, *named, check=False)
    assert failed.returncode == 1
    reason = f"cannot fetch {web.url}: invalid response status 404"
    assert failed.stderr.splitlines() == [f"wherry: {reason}"]


@pytest.mark.parametrize("status", [304, 405, 503])
def test_a_server_that_answers_no_question_is_asked_for_the_file(
    wherry: Cli, build: Build, web: WebServer, status: int
) -> None:
    """304 is an answer, whatever else a server leaves out."""
    web.headers = {"ETag": '"one"'}
    text = f"FROM busybox\nADD {web.url} /got\n"
    build(text, "-t", "made")
    web.headers, web.statuses["HEAD"] = {}, status

    assert build(text, "-t", "made").stderr.count("CACHED") == 2
    assert web.asked == ["GET", "HEAD", *(["GET"] if status != 304 else [])]
    assert run(wherry, "made", "cat", "/got") == "first\n"


@pytest.mark.parametrize("headers", [{}, {"Last-Modified": "young"}])
def test_a_file_of_which_nothing_is_known_is_fetched_each_time(
    wherry: Cli, build: Build, web: WebServer, headers: dict[str, str]
) -> None:
    """One that has changed a moment ago may do so again within the same second."""
    text = f"FROM busybox\nADD {web.url} /got\n"
    if headers:
        web.headers = {"Last-Modified": BaseHTTPRequestHandler.date_time_string(None)}  # type: ignore[arg-type]
    build(text, "-t", "made")
    web.content = b"other\n"
    build(text, "-t", "made")

    assert web.asked == ["GET", "GET"]
    assert run(wherry, "made", "cat", "/got") == "other\n"


def test_a_file_with_a_checksum_is_known_without_its_server(
    wherry: Cli, build: Build, web: WebServer
) -> None:
    digest = "1b4f0e9851971998e732078544c96b36c3d01cedf7caa332359d6f1d83567014"
    web.content = b"test1"
    text = f"FROM busybox\nADD --checksum=sha256:{digest} {web.url} /got\n"
    build(text, "-t", "made")
    web.statuses = {"HEAD": 500, "GET": 500}

    assert build(text, "-t", "made").stderr.count("CACHED") == 2
    assert web.asked == ["GET"]
    failed = build(text.replace("ADD", "RUN echo > /x\nADD"), check=False)
    assert "invalid response status 500" in failed.stderr


def test_a_commit_that_is_known_is_not_checked_out_again(
    wherry: Cli, build: Build, host_dir: str
) -> None:
    with repository(host_dir, {"file": "first\n"}) as url:
        text = f"FROM busybox\nADD --keep-git-dir {url} /got/\n"
        build(text, "-t", "made")
        assert build(text, "-t", "made").stderr.count("CACHED") == 2

        tree = f"{host_dir}/repository"
        with open(f"{tree}/file", "w") as file:
            file.write("second\n")
        settings = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", tree, *settings, "commit", "-qam", "two"], check=True)
        build(text, "-t", "made")

    assert run(wherry, "made", "cat", "/got/file") == "second\n"


def test_what_a_linked_copy_has_made_outlives_what_is_below_it(wherry: Cli, build: Build) -> None:
    text = """
        FROM busybox
        ARG CASE
        RUN echo $CASE > /case
        COPY --link hello /new/deep/
        COPY --link --chown=www-data sub/one /new/
        """
    build(text, "--build-arg=CASE=first", "-t", "first")
    shown = build(text, "--build-arg=CASE=second", "-t", "second").stderr

    def is_cached(step: str) -> bool:
        return "CACHED" in shown.split(f"] {step}\n")[1].split("\n\n")[0]

    assert is_cached("COPY --link hello /new/deep/")
    # Whose id that is the image below says.
    assert not is_cached("COPY --link --chown=www-data sub/one /new/")
    found = run(wherry, "second", "sh", "-c", "cat /case /new/deep/hello; stat -c %u /new/one")
    assert found == "second\nhello\n33\n"
