"""Layers lie apart on the disk: else ext4 may take a millisecond for each new file."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from support.requirements import need_tool
from wherry import paths
from wherry.image import layers
from wherry.image.layers import StoredLayer
from wherry.image.store import ImageStore

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.linux


def test_ext4_is_told_that_layers_have_nothing_to_do_with_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = ["stat", "--file-system", "--format=%T", str(tmp_path)]
    if (found := subprocess.check_output(kind, text=True).strip()) != "ext2/ext3":
        pytest.skip(f"needs ext4 for temporary files, this is {found}")
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path))
    store = ImageStore()
    digest = store.put_blob(bytes(1024))
    one = StoredLayer(store, {"mediaType": "x", "digest": digest, "size": 1024}, digest)

    layers.unpack([one], lambda function: function())

    directory = f"{paths.layers()}/sha256"
    attributes = subprocess.check_output([need_tool("lsattr"), "-d", directory], text=True)
    assert "T" in attributes.split()[0]
