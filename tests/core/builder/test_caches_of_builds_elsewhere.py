"""What a build elsewhere may do to a directory of this host that a cache is left in."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from wherry.builder.directories import Arrivals
from wherry.errors import AccessDenied, CorruptState, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

CONTENT = b"the content of a blob"


def described(content: bytes = CONTENT) -> dict[str, Any]:
    digest = f"sha256:{sha256(content).hexdigest()}"
    return {"mediaType": "text/plain", "digest": digest, "size": len(content)}


def question(place: Path, **more: Any) -> dict[str, Any]:
    return {"ask": "cache", "place": str(place), "tag": "latest", **more}


def piece(place: Path, content: bytes, offset: int = 0, **of: Any) -> dict[str, Any]:
    blob = of or described()
    return question(place, blob=blob, offset=offset, piece=b64encode(content).decode())


def files(place: Path) -> list[str]:
    return sorted(path.name for path in place.rglob("*") if path.is_file())


@pytest.fixture
def arrivals(tmp_path: Path) -> Iterator[Arrivals]:
    found = Arrivals([(str(tmp_path), "latest")])
    yield found
    found.close()


def test_a_blob_comes_in_pieces_and_is_named_when_it_is_whole(
    arrivals: Arrivals, tmp_path: Path
) -> None:
    name = sha256(CONTENT).hexdigest()
    assert arrivals.ask(question(tmp_path, blobs=[described()])) == {"lacks": [described()]}

    arrivals.ask(piece(tmp_path, CONTENT[:5]))
    with pytest.raises(AccessDenied, match="has not been sent"):
        arrivals.ask(question(tmp_path, image=described()))
    arrivals.ask(piece(tmp_path, CONTENT[5:], offset=5))
    arrivals.ask(question(tmp_path, image=described()))

    assert arrivals.ask(question(tmp_path, blobs=[described()])) == {"lacks": []}
    assert files(tmp_path) == sorted([name, "index.json", "index.json.lock", "oci-layout"])
    (entry,) = json.loads((tmp_path / "index.json").read_text())["manifests"]
    assert entry["digest"] == f"sha256:{name}"


def test_what_does_not_come_whole_leaves_nothing(arrivals: Arrivals, tmp_path: Path) -> None:
    arrivals.ask(piece(tmp_path, CONTENT[:5]))
    arrivals.close()

    assert files(tmp_path) == []


@pytest.mark.parametrize("content", [CONTENT[::-1], CONTENT + b"more"])
def test_another_content_than_was_said_is_refused(
    arrivals: Arrivals, tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(CorruptState, match="what was sent is not sha256:"):
        arrivals.ask(piece(tmp_path, content))

    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "digest", ["sha256:../../../etc/passwd", "../x", f"sha256:{'g' * 64}", f"sha512:{'0' * 128}"]
)
def test_no_name_leads_out_of_the_directory(
    arrivals: Arrivals, tmp_path: Path, digest: str
) -> None:
    for asked in (
        piece(tmp_path, CONTENT, **{**described(), "digest": digest}),
        question(tmp_path, image={**described(), "digest": digest}),
        question(tmp_path, blobs=[{**described(), "digest": digest}]),
    ):
        with pytest.raises((AccessDenied, UsageError)):
            arrivals.ask(asked)

    assert files(tmp_path) == []


def test_directories_that_the_command_does_not_name_are_nobodys(
    arrivals: Arrivals, tmp_path: Path
) -> None:
    for other in (question(tmp_path / "other", blobs=[]), {**question(tmp_path), "tag": "x"}):
        with pytest.raises(AccessDenied, match="the command leaves no cache in"):
            arrivals.ask(other)


def test_pieces_have_an_order(arrivals: Arrivals, tmp_path: Path) -> None:
    with pytest.raises(AccessDenied, match="no piece"):
        arrivals.ask(piece(tmp_path, CONTENT[5:], offset=5))
    arrivals.ask(piece(tmp_path, CONTENT[:5]))
    with pytest.raises(AccessDenied, match="no piece"):
        arrivals.ask(piece(tmp_path, CONTENT[5:], offset=6))
