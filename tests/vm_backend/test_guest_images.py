"""Where a guest image comes from, and that none that is damaged is ever booted."""

from __future__ import annotations

import hashlib
import json
import lzma
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wherry import __version__
from wherry.errors import CorruptState, MachineError, NotFound
from wherry_vm.image import add_image, find_image, images
from wherry_vm.machines import Machine, Settings

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
    describe(directory)
    return directory


def describe(directory: Path, *, version: str = __version__) -> None:
    """Write the manifest of an image."""
    manifest = {
        "schema": 1,
        "version": version,
        "architecture": "amd64",
        "command_line": {"always": ["quiet"], "emulated": []},
        "files": {
            name: {"sha256": hashlib.sha256((directory / name).read_bytes()).hexdigest()}
            for name in FILES
        },
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))


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


def cut_manifest(image: Path) -> Path:
    path = image / "manifest.json"
    path.write_text(path.read_text()[:-10])
    return image


def empty_manifest(image: Path) -> Path:
    (image / "manifest.json").write_text('{"schema": 1}')
    return image


def empty_file(image: Path) -> Path:
    path = image.parent / "empty"
    path.touch()
    return path


@pytest.mark.parametrize(
    "spoil",
    [spoil_compressed, spoil_wheel, lose_file, empty_file, cut_manifest, empty_manifest],
)
def test_what_is_cut_or_changed_is_an_error_and_not_kept(
    image: Path, spoil: Callable[[Path], Path]
) -> None:
    with pytest.raises(CorruptState):
        add_image(str(spoil(image)))

    assert [each for each in Path(images()).glob("*") if each.name != "lock"] == []


def test_what_is_not_there_is_not_found(image: Path) -> None:
    with pytest.raises(NotFound, match="no such guest image: /nowhere"):
        add_image("/nowhere")


@pytest.fixture
def said() -> list[str]:
    """What a start has told."""
    return []


@pytest.fixture
def installed(image: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same image, as the one that is there for all machines."""
    monkeypatch.setenv("WHERRY_GUEST", str(image))
    return image


def machine(image: str = "") -> Machine:
    return Machine(name="box", settings=Settings(image=image))


def spoil_stored(digest: str) -> Path:
    """Change a file of the store, and nothing else about it than its content and time."""
    path = Path(images(), digest, "root.erofs")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    return path


@pytest.mark.usefixtures("installed")
def test_an_image_that_was_damaged_in_the_store_is_unpacked_again(said: list[str]) -> None:
    spoiled = spoil_stored(find_image(machine(), said.append).digest)

    find_image(machine(), said.append)

    assert spoiled.read_bytes() == FILES["root.erofs"]
    assert said[1].startswith("the guest image is damaged: root.erofs has the digest")
    assert said[2] == "Unpacking the guest image"


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_machines_own_image_that_is_damaged_is_never_booted(
    image: Path, said: list[str], name: str
) -> None:
    digest = add_image(str(image))
    path = Path(images(), digest, name)
    path.write_bytes(path.read_bytes()[:-1])

    for _ in ("changed", "gone"):
        with pytest.raises(CorruptState, match=f"damaged: {name}|has no manifest") as error:
            find_image(machine(digest), said.append)
        assert error.value.hint == "wherry machine set --image FILE box"
        path.unlink(missing_ok=True)

    assert add_image(str(image)) == digest
    assert find_image(machine(digest), said.append).digest == digest


def test_an_image_of_another_release_is_replaced_by_this_ones(
    installed: Path, said: list[str], tmp_path: Path
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name in FILES:
        (old / name).write_bytes(b"old")
    describe(old, version="0.0.1")
    digest = add_image(str(old))

    found = find_image(machine(digest), said.append)

    assert Path(found.root).read_bytes() == FILES["root.erofs"]
    assert said[0] == f"the image of machine box is of wherry 0.0.1, and this is {__version__}"


def test_where_there_is_none_of_this_release_nothing_is_booted(
    installed: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    describe(installed, version="0.0.1")
    with pytest.raises(MachineError, match=r"is of wherry 0\.0\.1, and this is"):
        find_image(machine(), said.append)

    digest = add_image(str(installed))
    monkeypatch.delenv("WHERRY_GUEST")
    monkeypatch.setattr("wherry_vm.image._installed", lambda: None)
    # Neither is new any more: what is to be done is done to a machine that is there.
    for one in (machine(digest), machine()):
        with pytest.raises(NotFound, match="no guest image of wherry") as caught:
            find_image(one, said.append)
        assert "wherry machine set --image FILE box" in str(caught.value.hint)


@pytest.mark.usefixtures("installed")
def test_what_no_machine_boots_is_removed(said: list[str]) -> None:
    half = Path(images(), "0" * 64 + ".tmp")
    half.mkdir(parents=True)

    digest = find_image(machine(), said.append).digest

    assert {each.name for each in Path(images()).iterdir()} == {digest, "lock"}
