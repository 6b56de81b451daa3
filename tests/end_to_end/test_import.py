"""`import`: a tar of files, from a file, a pipe or a web server, becomes an image."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from support.busybox import busybox_layer
from support.settings import OFFLINE, as_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.cli import Cli


class _Files(http.server.BaseHTTPRequestHandler):
    """Serves /whole.tar.gz, and /cut.tar.gz which ends too early."""

    content: ClassVar[bytes] = b""

    def do_GET(self) -> None:
        if self.path not in ("/whole.tar.gz", "/cut.tar.gz"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        end = len(self.content) // (2 if self.path == "/cut.tar.gz" else 1)
        self.wfile.write(self.content[:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    _Files.content = gzip.compress(busybox_layer())
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_files_become_an_image_with_what_is_said_of_it(wherry: Cli) -> None:
    changes = ("-c", "CMD echo hello", "-c", "ENV A=b C=d", "-c", "WORKDIR /tmp")
    image_id = wherry("import", *changes, "-m", "from tar", "-", "made:1", input=busybox_layer())

    document = json.loads(wherry("image", "inspect", "made:1").stdout)[0]
    assert image_id.stdout == document["Id"] + "\n"
    assert document["Config"]["Env"] == ["A=b", "C=d"]
    assert wherry("history", "--format", "{{.Comment}}", "made:1").lines == ["from tar"]
    assert wherry("run", "--rm", OFFLINE, "made:1", "pwd").lines == ["/tmp"]


def test_without_a_name_it_is_an_image_all_the_same(wherry: Cli) -> None:
    image_id = wherry("import", "-", input=busybox_layer()).stdout.strip()

    listed = wherry("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}").lines
    assert f"{image_id} <none>" in listed


@as_root
def test_a_web_server_is_asked_for_the_files(wherry: Cli, server: str) -> None:
    wherry("import", f"{server}/whole.tar.gz", "made")

    assert wherry("run", "--rm", OFFLINE, "made", "echo", "ok").lines == ["ok"]
    comment = wherry("history", "--format", "{{.Comment}}", "made").lines
    assert comment == [f"Imported from {server}/whole.tar.gz"]


@pytest.mark.parametrize("name", ["cut.tar.gz", "none.tar.gz"])
@as_root
def test_what_a_web_server_has_not_got_whole_makes_no_image(
    wherry: Cli, server: str, name: str
) -> None:
    result = wherry("import", f"{server}/{name}", "made", check=False)

    assert result.returncode == 1
    assert result.stderr.startswith(f"wherry: cannot fetch {server}/{name}: ")
    assert wherry("images", "-q").lines == []


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda layer: b"no tar at all" * 100, "not a tar stream"),
        (lambda layer: gzip.compress(layer)[:-2000], "ends in the middle"),
        (lambda layer: layer[:100_000], "ends in the middle"),
    ],
    ids=["junk", "cut gzip", "cut tar"],
)
@as_root
def test_a_bad_tar_makes_no_image_and_leaves_nothing(
    wherry: Cli, wherry_root: str, spoil: Callable[[bytes], bytes], told: str
) -> None:
    result = wherry("import", "-", "made", input=spoil(busybox_layer()), check=False)

    assert result.returncode == 1
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1
    images = Path(wherry_root, "data", "images")
    assert [*images.glob("blobs/sha256/*"), *images.glob("partial/*")] == []
    assert list(Path(wherry_root, "data", "layers").rglob("diff")) == []


@as_root
def test_a_file_that_is_not_there_is_said(wherry: Cli) -> None:
    result = wherry("import", "/nowhere/x.tar", check=False)

    assert (result.returncode, result.stderr) == (
        1,
        "wherry: open /nowhere/x.tar: no such file or directory\n",
    )
