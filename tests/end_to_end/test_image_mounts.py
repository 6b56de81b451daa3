"""`image mount`: an image's files where programs of the host can read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.settings import as_root, as_rootless

if TYPE_CHECKING:
    from support.cli import Cli


@as_root
def test_files_of_an_image_can_be_read_and_not_changed(wherry: Cli, busybox_image: str) -> None:
    place = Path(wherry("image", "mount", busybox_image).stdout.strip())
    try:
        assert (place / "bin/busybox").stat().st_mode & 0o111
        with pytest.raises(OSError, match="Read-only"):
            (place / "new").touch()
        [told] = json.loads(wherry("image", "mount", "--format", "json").stdout)
        assert told["mountpoint"] == str(place)
        assert wherry("image", "mount").stdout.endswith(f" {place}\n")
    finally:
        wherry("image", "unmount", busybox_image)
    assert not place.exists()
    assert wherry("image", "mount").stdout == ""


@as_root
def test_image_stays_mounted_until_it_is_unmounted_as_often(
    wherry: Cli, busybox_image: str
) -> None:
    place = Path(wherry("image", "mount", busybox_image).stdout.strip())
    wherry("image", "mount", busybox_image)

    wherry("image", "unmount", busybox_image)
    assert place.is_mount()
    wherry("image", "umount", busybox_image)
    assert not place.exists()

    wherry("image", "mount", "--all")
    wherry("image", "mount", "--all")
    wherry("image", "unmount", "--all")
    assert not place.exists()
    refused = wherry("image", "unmount", busybox_image, check=False)
    assert (refused.returncode, refused.stderr) == (
        1,
        f"wherry: image {busybox_image} is not mounted\n",
    )


@as_root
def test_files_stay_where_the_image_is_removed_meanwhile(wherry: Cli, busybox_image: str) -> None:
    place = Path(wherry("image", "mount", busybox_image).stdout.strip())
    identity = place.parent.name

    wherry("rmi", busybox_image)
    wherry("image", "prune", "--all", "--force")
    content = (place / "bin/busybox").read_bytes()
    wherry("image", "unmount", identity[:12])

    assert content[:4] == b"\x7fELF"
    assert not place.exists()


@as_root
def test_reset_unmounts(wherry: Cli, busybox_image: str) -> None:
    place = Path(wherry("image", "mount", busybox_image).stdout.strip())

    wherry("system", "reset", "--force")

    assert not place.exists()


@as_rootless
@pytest.mark.parametrize("verb", ["mount", "unmount"])
def test_who_could_not_see_a_mount_is_told(wherry: Cli, busybox_image: str, verb: str) -> None:
    result = wherry("image", verb, busybox_image, check=False)

    assert result.returncode == 125
    assert result.stderr.splitlines()[0] == (
        "wherry: images are mounted by root alone: nobody would see the mount of another user"
    )
