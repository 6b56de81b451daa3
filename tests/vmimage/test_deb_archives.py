"""A .deb is read without dpkg, and a damaged one is an error."""

from __future__ import annotations

import io
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from support.mirror import COMPRESSORS, ar_of, make_deb, tar_of
from support.requirements import need_tool
from wherry.errors import CorruptState, Unsupported
from wherry_vmimage.deb import ar_members, read_deb

if TYPE_CHECKING:
    from pathlib import Path

CONTROL = {"Package": "thing", "Version": "1.0", "Architecture": "amd64"}


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_package_of_any_compression_is_read(compression: str) -> None:
    content = make_deb(
        CONTROL,
        [("./etc/thing", b"text")],
        scripts={"postinst": b"#!/bin/sh\n", "conffiles": b"/etc/thing\nremove-on-upgrade /x\n"},
        compression=compression,
    )

    deb = read_deb(content)

    assert deb.control == CONTROL
    assert deb.scripts["postinst"] == b"#!/bin/sh\n"
    assert deb.conffiles == ["/etc/thing"]
    with tarfile.open(fileobj=io.BytesIO(deb.data)) as tar:
        assert tar.getnames() == ["./etc/thing"]


def test_package_of_dpkg_itself_is_read(tmp_path: Path) -> None:
    dpkg_deb = need_tool("dpkg-deb")
    (tmp_path / "package/DEBIAN").mkdir(parents=True)
    control = "".join(f"{name}: {value}\n" for name, value in CONTROL.items())
    (tmp_path / "package/DEBIAN/control").write_text(
        f"{control}Maintainer: nobody\nDescription: a test\n"
    )
    (tmp_path / "package/file").write_text("odd")
    built = tmp_path / "built.deb"
    subprocess.run(
        [dpkg_deb, "--root-owner-group", "--build", tmp_path / "package", built],
        check=True,
        capture_output=True,
    )

    deb = read_deb(built.read_bytes())

    assert deb.control["Package"] == "thing"
    with tarfile.open(fileobj=io.BytesIO(deb.data)) as tar:
        assert "./file" in tar.getnames()


def test_members_that_are_not_for_us_are_passed_over() -> None:
    members = list(ar_members(make_deb(CONTROL)))
    members.insert(1, ("_signature", b"whatever"))

    assert read_deb(ar_of(members)).control == CONTROL


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an ar archive"),
        (b"PK\x03\x04", "not an ar archive"),
        (b"!<arch>\n" + b"x" * 20, "header is damaged"),
        (b"!<arch>\n" + b"x" * 60, "header is damaged"),
        (make_deb(CONTROL)[:-30], "ends within a member"),
        (ar_of([("debian-binary", b"2.0\n")]), "it is no Debian package"),
        (
            ar_of([("debian-binary", b"2.0\n"), ("control.tar", b"no tar"), ("data.tar", b"")]),
            "control archive is damaged",
        ),
        (
            ar_of(
                [
                    ("debian-binary", b"2.0\n"),
                    ("control.tar", tar_of([("./control", b"Package: a\n")])),
                    ("data.tar.xz", b"no xz"),
                ]
            ),
            "data.tar.xz is damaged",
        ),
    ],
)
def test_damaged_package_is_an_error(content: bytes, reason: str) -> None:
    with pytest.raises(CorruptState, match=reason):
        read_deb(content)


def test_package_of_an_unknown_format_is_an_error() -> None:
    members = dict(ar_members(make_deb(CONTROL)))

    with pytest.raises(Unsupported, match=r"not 2\.0"):
        read_deb(ar_of({**members, "debian-binary": b"3.0\n"}.items()))
    with pytest.raises(Unsupported, match="compressed in a way"):
        read_deb(ar_of([*list(members.items())[:2], ("data.tar.lz9", b"")]))
