"""`system check`: damage is found, mended, and told with an exit code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from support.busybox import busybox_archive
from support.settings import OFFLINE, on_linux

if TYPE_CHECKING:
    from support.cli import Cli


def as_owner(path: Path, content: bytes) -> None:
    """Put other content into a file that may be another user's, and leave it theirs."""
    with path.open("r+b") as file:
        file.truncate()
        file.write(content)


def test_a_sound_world_has_nothing_to_tell(wherry: Cli, busybox_image: str) -> None:
    wherry("run", "--name", "box", OFFLINE, busybox_image, "touch", "/file")
    wherry("commit", "box", "made")

    assert wherry("system", "check").output == b""
    assert wherry("system", "check", "--repair").output == b""


def test_a_fresh_world_has_nothing_to_tell(wherry: Cli) -> None:
    assert wherry("system", "check").output == b""
    assert wherry("system", "check", "--repair").output == b""


@on_linux  # it writes into the store's files
def test_a_damaged_layer_is_unpacked_again(
    wherry: Cli, wherry_root: str, busybox_image: str
) -> None:
    passwd = next(Path(wherry_root, "data", "layers").glob("sha256/*/diff/etc/passwd"))
    as_owner(passwd, b"")

    found = wherry("system", "check", check=False)
    assert found.returncode == 1
    assert "/etc/passwd is not what the layer's blob holds" in found.lines[0]
    assert wherry("system", "check", "--quick").output == b""

    assert wherry("system", "check", "--repair").lines[0].endswith("(repaired)")
    assert wherry("system", "check").output == b""
    wherry("run", "--rm", OFFLINE, "--user", "nobody", busybox_image, "true")


@on_linux
def test_a_damaged_blob_is_dropped_and_loaded_again(
    wherry: Cli, wherry_root: str, busybox_image: str
) -> None:
    blobs = Path(wherry_root, "data", "images", "blobs", "sha256")
    as_owner(min(blobs.iterdir(), key=lambda path: path.stat().st_size), b"{}")

    assert wherry("system", "check", check=False).returncode == 1
    wherry("system", "check", "--repair")
    assert wherry("system", "check").output == b""

    wherry("load", input=busybox_archive())
    assert wherry("run", "--rm", OFFLINE, busybox_image, "echo", "ok").lines == ["ok"]


@on_linux
def test_a_container_whose_record_is_lost_goes_only_by_force(
    wherry: Cli, wherry_root: str, busybox_image: str
) -> None:
    wherry("run", "--name", "box", OFFLINE, busybox_image, "touch", "/file")
    directory = next(Path(wherry_root, "data", "containers").iterdir())
    as_owner(directory / "container.json", b"{")

    found = wherry("system", "check", "--repair", check=False)
    assert (found.returncode, len(found.lines)) == (1, 2)
    assert "--repair --force removes the container" in found.lines[1]
    assert directory.exists()

    wherry("system", "check", "--repair", "--force")
    assert not directory.exists()
    assert os.listdir(Path(wherry_root, "data", "names")) == []
    assert wherry("system", "check").output == b""
