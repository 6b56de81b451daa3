"""Images whose author means harm, through the command: one line, and nothing of them is left."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from support.layers import LINK, SYMLINK, entry, layer

if TYPE_CHECKING:
    from support.cli import Cli
    from support.layers import Entry

ATTACKS: dict[str, list[Entry]] = {
    "parent": [entry("../../../escaped", b"1")],
    "link out of the root": [
        entry("a", kind=SYMLINK, linkname="../.."),
        entry("a/escaped", b"1"),
    ],
    "hard link out of the root": [entry("a", kind=LINK, linkname="../../layer.json")],
}


def archive(content: bytes, diff_id: str = "") -> bytes:
    """A docker archive with one layer."""
    diff_id = diff_id or f"sha256:{hashlib.sha256(content).hexdigest()}"
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    manifest = [{"Config": "c.json", "RepoTags": ["hostile:1"], "Layers": ["layer.tar"]}]
    return layer(
        entry("layer.tar", content),
        entry("c.json", json.dumps(config).encode()),
        entry("manifest.json", json.dumps(manifest).encode()),
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_layer_that_reaches_out_of_its_root_is_refused(wherry: Cli, attack: str) -> None:
    before = wherry("images", "-aq").stdout

    result = wherry("load", input=archive(layer(*ATTACKS[attack])), check=False)

    assert result.returncode == 1
    assert result.stderr.startswith("wherry: ")
    assert result.stderr.count("\n") == 1
    assert wherry("images", "-aq").stdout == before


@pytest.mark.parametrize("diff_id", ["sha256:../../../../escaped", f"sha256:{'0' * 64}"])
def test_layer_that_is_not_what_its_image_says_is_refused(wherry: Cli, diff_id: str) -> None:
    before = wherry("images", "-aq").stdout

    result = wherry("load", input=archive(layer(entry("a", b"1")), diff_id), check=False)

    assert result.returncode == 1
    assert result.stderr.startswith("wherry: ")
    assert wherry("images", "-aq").stdout == before
