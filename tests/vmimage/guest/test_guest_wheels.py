"""The wheel that brings a guest."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import lzma
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from wherry import __version__
from wherry.errors import NotFound
from wherry_vmimage.guest.wheel import build_wheel

SYSTEMS = ("darwin", "win32", "linux")
IMAGES = {"kernel": b"k" * 5000, "initramfs": b"i" * 5000, "root.erofs": b"r" * 50_000}


@pytest.fixture
def guest(tmp_path: Path) -> str:
    directory = tmp_path / "guest"
    directory.mkdir()
    for name, content in IMAGES.items():
        (directory / name).write_bytes(content)
    manifest = {"version": "1.2", "architecture": "arm64", "suite": "trixie", "date": 1_700_000_000}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    (directory / "packages.lock").write_text("{}")
    (directory / "LICENSES.txt").write_text("the terms")
    return str(directory)


def test_wheel_holds_the_images_and_the_terms(guest: str, tmp_path: Path) -> None:
    path = build_wheel(guest, str(tmp_path / "dist"))

    with zipfile.ZipFile(path) as wheel:
        for name, content in IMAGES.items():
            assert lzma.decompress(wheel.read(f"wherry_guest/{name}.xz")) == content
        assert json.loads(wheel.read("wherry_guest/manifest.json"))["architecture"] == "arm64"
        assert wheel.read("wherry_guest-1.2.dist-info/licenses/LICENSES.txt") == b"the terms"


def test_wheel_is_for_every_system_of_the_architecture(guest: str, tmp_path: Path) -> None:
    path = build_wheel(guest, str(tmp_path))

    platforms = "macosx_11_0_arm64 manylinux_2_17_aarch64 musllinux_1_1_aarch64 win_arm64".split()
    assert Path(path).name == f"wherry_guest-1.2-py3-none-{'.'.join(platforms)}.whl"
    with zipfile.ZipFile(path) as wheel:
        lines = wheel.read("wherry_guest-1.2.dist-info/WHEEL").decode().splitlines()
    assert [line for line in lines if line.startswith("Tag:")] == [
        f"Tag: py3-none-{platform}" for platform in platforms
    ]


def test_wherry_brings_it_along_where_there_is_no_linux() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    needed = map(Requirement, project["project"]["dependencies"])
    guest = next(each for each in needed if each.name == "wherry-guest")
    assert guest.marker is not None

    # Host and guest are of one release.
    assert str(guest.specifier) == f"=={__version__}"
    systems = {name: guest.marker.evaluate({"sys_platform": name}) for name in SYSTEMS}
    assert systems == {"darwin": True, "win32": True, "linux": False}


def test_record_has_the_digest_of_every_file(guest: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(build_wheel(guest, str(tmp_path))) as wheel:
        record = wheel.read("wherry_guest-1.2.dist-info/RECORD").decode()
        rows = list(csv.reader(record.splitlines()))

        assert {row[0] for row in rows} == set(wheel.namelist())
        for path, digest, size in rows[:-1]:
            content = wheel.read(path)
            wanted = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            assert (digest, int(size)) == (f"sha256={wanted}", len(content))


def test_same_guest_makes_the_same_wheel(guest: str, tmp_path: Path) -> None:
    first, second = (
        Path(build_wheel(guest, str(tmp_path / name))).read_bytes() for name in ("a", "b")
    )

    assert first == second


def test_directory_without_a_guest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="holds no guest"):
        build_wheel(str(tmp_path), str(tmp_path))
