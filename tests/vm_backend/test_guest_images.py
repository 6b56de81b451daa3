"""Where a guest image comes from, and that none that is damaged is ever booted."""

from __future__ import annotations

import hashlib
import json
import lzma
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wherry.errors import CorruptState, NotFound
from wherry_vm.image import add_image, images

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = {"kernel": b"kernel" * 1000, "initramfs": b"initramfs", "root.erofs": b"root" * 5000}


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is an image."""
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path / "world"))
    directory = tmp_path / "image"
    directory.mkdir()
    for name, content in FILES.items():
        (directory / name).write_bytes(content)
    digests = {name: {"sha256": hashlib.sha256(each).hexdigest()} for name, each in FILES.items()}
    (directory / "manifest.json").write_text(json.dumps({"schema": 1, "files": digests}))
    return directory


def compressed(image: Path) -> Path:
    """The same as it is installed by pip."""
    for name in FILES:
        (image / f"{name}.xz").write_bytes(lzma.compress((image / name).read_bytes()))
        (image / name).unlink()
    return image


def wheel(image: Path) -> Path:
    """The same as a wheel."""
    path = image.parent / "guest.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in compressed(image).iterdir():
            archive.write(file, f"wherry_guest/{file.name}")
    return path


@pytest.mark.parametrize("make", [Path, compressed, wheel])
def test_an_image_is_stored_as_its_manifest_says(image: Path, make: Callable[[Path], Path]) -> None:
    digest = add_image(str(make(image)))

    stored = Path(images(), digest)
    assert {name: (stored / name).read_bytes() for name in FILES} == FILES
    assert add_image(str(image)) == digest


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_the_manifests_is_refused(image: Path, name: str) -> None:
    (image / name).write_bytes(b"another")

    with pytest.raises(CorruptState, match=f"damaged: {name} has the digest"):
        add_image(str(image))

    assert [each for each in Path(images()).iterdir() if each.name != "lock"] == []


def spoil_compressed(image: Path) -> Path:
    path = compressed(image) / "root.erofs.xz"
    path.write_bytes(path.read_bytes()[:-10])
    return image


def spoil_wheel(image: Path) -> Path:
    path = wheel(image)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    return path


def lose_file(image: Path) -> Path:
    (image / "kernel").unlink()
    return image


def empty_file(image: Path) -> Path:
    path = image.parent / "empty"
    path.touch()
    return path


@pytest.mark.parametrize("spoil", [spoil_compressed, spoil_wheel, lose_file, empty_file])
def test_what_is_cut_or_changed_is_an_error_and_not_kept(
    image: Path, spoil: Callable[[Path], Path]
) -> None:
    with pytest.raises(CorruptState):
        add_image(str(spoil(image)))

    assert [each for each in Path(images()).glob("*") if each.name != "lock"] == []


def test_what_is_not_there_is_not_found(image: Path) -> None:
    with pytest.raises(NotFound, match="no such guest image: /nowhere"):
        add_image("/nowhere")
