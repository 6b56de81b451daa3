"""What a layer's tar becomes on disk."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

if sys.platform != "linux":
    pytest.skip("layers are unpacked on Linux", allow_module_level=True)

from support.layers import DIRECTORY, FIFO, LINK, SYMLINK, entry, layer, unpack
from wherry.container.copy import remove_tree

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="layers are unpacked on Linux")


def is_whiteout(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "user.overlay.opaque" in os.listxattr(path)


def test_files_keep_content_mode_and_time(tmp_path: Path) -> None:
    unpack(
        tmp_path,
        entry("bin", kind=DIRECTORY, mode=0o751, mtime=1_000_000_000),
        entry("bin/tool", b"#!", mode=0o4755, mtime=1_234_567_890.25),
        entry("bin/empty", b"", mode=0o600),
    )

    tool = tmp_path / "bin/tool"
    assert tool.read_bytes() == b"#!"
    assert stat.S_IMODE(tool.stat().st_mode) == 0o4755
    assert tool.stat().st_mtime_ns == 1_234_567_890_250_000_000
    assert (tmp_path / "bin/empty").read_bytes() == b""
    assert stat.S_IMODE((tmp_path / "bin").stat().st_mode) == 0o751
    assert (tmp_path / "bin").stat().st_mtime == 1_000_000_000


def test_size_is_that_of_all_files(tmp_path: Path) -> None:
    size, _ = unpack(tmp_path, entry("a", b"123"), entry("b", b"x" * 1_000_000))

    assert size == 1_000_003


def test_links_are_kept(tmp_path: Path) -> None:
    unpack(
        tmp_path,
        entry("a", b"1", mode=0o640),
        entry("b", kind=LINK, linkname="a", mode=0o777),
        entry("c", kind=SYMLINK, linkname="/etc/passwd"),
        entry("d", kind=LINK, linkname="c"),
    )

    assert (tmp_path / "b").stat().st_ino == (tmp_path / "a").stat().st_ino
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o640
    assert os.readlink(tmp_path / "c") == "/etc/passwd"
    assert os.readlink(tmp_path / "d") == "/etc/passwd"


def test_fifos_are_made(tmp_path: Path) -> None:
    unpack(tmp_path, entry("pipe", kind=FIFO, mode=0o622))

    assert (tmp_path / "pipe").is_fifo()
    assert stat.S_IMODE((tmp_path / "pipe").stat().st_mode) == 0o622


def test_directories_that_no_member_names_are_made(tmp_path: Path) -> None:
    unpack(tmp_path, entry("a/b/c", b"1"))

    assert (tmp_path / "a/b/c").read_bytes() == b"1"
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o755


def test_directories_nest_as_deep_as_a_path_can_be(tmp_path: Path) -> None:
    unpack(tmp_path, entry("/".join("d" * 1500) + "/file", b"1"))

    find = ["find", ".", "-type", "d"]
    found = subprocess.run(find, cwd=tmp_path, capture_output=True, check=True)
    remove_tree(str(tmp_path / "d"))  # what pytest tidies up with goes less deep
    assert found.stdout.count(b"\n") == 1501


def test_closed_directory_gets_its_files(tmp_path: Path) -> None:
    unpack(tmp_path, entry("d", kind=DIRECTORY, mode=0o500), entry("d/f", b"1"))

    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o500
    assert (tmp_path / "d/f").exists()


def test_set_group_id_directory_passes_nothing_on(tmp_path: Path) -> None:
    tmp_path.chmod(0o2755)
    unpack(
        tmp_path,
        entry("d", kind=DIRECTORY, mode=0o2775),
        entry("d/e", kind=DIRECTORY, mode=0o755),
    )

    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o2775
    assert stat.S_IMODE((tmp_path / "d/e").stat().st_mode) == 0o755


def test_root_itself_takes_what_its_member_says(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    unpack(root, entry("./", kind=DIRECTORY, mode=0o555), entry("./a", b"1"))

    assert stat.S_IMODE(root.stat().st_mode) == 0o555


def test_paths_below_links_of_the_layer_lead_to_their_targets(tmp_path: Path) -> None:
    unpack(
        tmp_path,
        entry("usr/lib", kind=DIRECTORY),
        entry("lib", kind=SYMLINK, linkname="usr/lib"),
        entry("lib/libc.so", b"1"),
    )

    assert (tmp_path / "usr/lib/libc.so").read_bytes() == b"1"
    assert (tmp_path / "lib").is_symlink()


# ---- members that come twice ----


@pytest.mark.parametrize(
    "first",
    [
        entry("a", b"old"),
        entry("a", kind=SYMLINK, linkname="elsewhere"),
        entry("a", kind=FIFO),
        entry("a/below", b"old"),
    ],
    ids=["file", "link", "fifo", "directory"],
)
def test_later_member_takes_the_place_of_an_earlier_one(
    tmp_path: Path, first: tuple[tarfile.TarInfo, bytes]
) -> None:
    unpack(tmp_path, first, entry("a", b"new"))

    assert (tmp_path / "a").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["a"]


@pytest.mark.parametrize("said", [True, False], ids=["said", "implied"])
def test_directory_takes_the_place_of_a_file(tmp_path: Path, said: bool) -> None:
    directory = [entry("a", kind=DIRECTORY)] if said else []
    unpack(tmp_path, entry("a", b"old"), *directory, entry("a/b", b"new"))

    assert (tmp_path / "a/b").read_bytes() == b"new"


def test_directory_that_replaces_a_link_is_where_its_files_go(tmp_path: Path) -> None:
    unpack(
        tmp_path,
        entry("real", kind=DIRECTORY),
        entry("a", kind=SYMLINK, linkname="real"),
        entry("a/one", b"1"),
        entry("a", kind=DIRECTORY),
        entry("a/two", b"2"),
    )

    assert os.listdir(tmp_path / "real") == ["one"]
    assert os.listdir(tmp_path / "a") == ["two"]


def test_second_member_of_a_directory_changes_how_it_is(tmp_path: Path) -> None:
    unpack(
        tmp_path,
        entry("a", kind=DIRECTORY, mode=0o700),
        entry("a/b", b"1"),
        entry("a", kind=DIRECTORY, mode=0o755),
    )

    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755
    assert (tmp_path / "a/b").exists()


# ---- whiteouts ----


def test_whiteout_becomes_overlayfs_own(tmp_path: Path) -> None:
    unpack(tmp_path, entry("etc/.wh.motd", b""))

    assert is_whiteout(tmp_path / "etc/motd")
    assert os.listdir(tmp_path / "etc") == ["motd"]


def test_opaque_whiteout_marks_its_directory(tmp_path: Path) -> None:
    unpack(tmp_path, entry("etc/.wh..wh..opq", b""), entry("etc/new", b"1"))

    assert is_opaque(tmp_path / "etc")
    assert os.listdir(tmp_path / "etc") == ["new"]


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_whiteout_is_about_the_layers_below_and_not_about_its_siblings(
    tmp_path: Path, whiteout_first: bool
) -> None:
    members = [entry("a/.wh.f", b""), entry("a/f", b"new")]
    unpack(tmp_path, *(members if whiteout_first else reversed(members)))

    assert (tmp_path / "a/f").read_bytes() == b"new"


@pytest.mark.parametrize("how", ["whiteout first", "directory first", "implied"])
def test_directory_that_was_removed_and_made_anew_hides_what_it_was(
    tmp_path: Path, how: str
) -> None:
    whiteout, directory = entry(".wh.d", b""), entry("d", kind=DIRECTORY)
    unpack(
        tmp_path,
        *{
            "whiteout first": (whiteout, directory, entry("d/f", b"1")),
            "directory first": (directory, entry("d/f", b"1"), whiteout),
            "implied": (whiteout, entry("d/f", b"1")),
        }[how],
    )

    assert is_opaque(tmp_path / "d")
    assert (tmp_path / "d/f").exists()


def test_bookkeeping_of_aufs_is_left_out(tmp_path: Path) -> None:
    unpack(tmp_path, entry(".wh..wh.plnk", kind=DIRECTORY), entry(".wh..wh.aufs", b""))

    assert os.listdir(tmp_path) == []


# ---- attributes ----


def test_attributes_of_files_are_kept(tmp_path: Path) -> None:
    unpack(tmp_path, entry("f", b"1", pax={"SCHILY.xattr.user.note": "hello"}))

    assert os.getxattr(tmp_path / "f", "user.note") == b"hello"


def test_attributes_that_libarchive_wrote_are_kept(tmp_path: Path) -> None:
    unpack(tmp_path, entry("f", b"1", pax={"LIBARCHIVE.xattr.user.a%25b": "aGVsbG8"}))

    assert os.getxattr(tmp_path / "f", "user.a%b") == b"hello"


def test_layer_cannot_speak_to_overlayfs(tmp_path: Path) -> None:
    unpack(tmp_path, entry("d", kind=DIRECTORY, pax={"SCHILY.xattr.user.overlay.redirect": "/"}))

    assert os.listxattr(tmp_path / "d") == []


def test_attribute_that_cannot_be_kept_is_told_of_in_one_line(tmp_path: Path) -> None:
    pax = {"SCHILY.xattr.nonsense.x": "1"}
    _, warnings = unpack(tmp_path, entry("f", b"1", pax=pax), entry("g", b"1", pax=pax))

    assert warnings == ["f and 1 more: the attribute nonsense.x cannot be kept here"]


@pytest.mark.linux
def test_owners_set_user_id_and_devices_are_kept_for_root(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give files away")
    capability = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
    unpack(
        tmp_path,
        entry("f", b"1", uid=1000, gid=50, mode=0o6755),
        entry("d", kind=DIRECTORY, uid=33, gid=33, mode=0o1777),
        entry("l", kind=SYMLINK, linkname="f", uid=7, gid=8),
        entry("null", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666),
        entry("huge", b"1", uid=3_000_000_000),
        entry("ping", b"1", uid=5,
              pax={"SCHILY.xattr.security.capability": capability.decode("latin-1")}),
    )  # fmt: skip

    file, directory, link = (os.lstat(tmp_path / name) for name in "fdl")
    assert (file.st_uid, file.st_gid, stat.S_IMODE(file.st_mode)) == (1000, 50, 0o6755)
    assert (directory.st_uid, stat.S_IMODE(directory.st_mode)) == (33, 0o1777)
    assert (link.st_uid, link.st_gid) == (7, 8)
    assert (tmp_path / "null").stat().st_rdev == os.makedev(1, 3)
    assert (tmp_path / "huge").stat().st_uid == 3_000_000_000
    assert os.getxattr(tmp_path / "ping", "security.capability") == capability


# ---- forms of tar ----


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_is_read(tmp_path: Path, form: int) -> None:
    name = "directory/" * 9 + "file-ä" if form == tarfile.USTAR_FORMAT else "long/" * 60 + "ä" * 99
    unpack(tmp_path, entry(name, b"1"), entry("b", kind=LINK, linkname=name), form=form)

    assert (tmp_path / name).read_bytes() == b"1"
    assert (tmp_path / "b").stat().st_nlink == 2


def test_name_need_not_be_text(tmp_path: Path) -> None:
    unpack(tmp_path, entry("\udcff\udcfe", b"1"), form=tarfile.GNU_FORMAT)

    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff\xfe"]


def test_archive_need_not_say_that_it_ends(tmp_path: Path) -> None:
    whole = layer(entry("a", b"1"))
    unpack(tmp_path, raw=whole[:1024])

    assert (tmp_path / "a").read_bytes() == b"1"


def test_pieces_of_any_size_give_the_same_files(tmp_path: Path) -> None:
    content = os.urandom(5000)
    whole = io.BytesIO(layer(entry("a", content), entry("b" * 200, b"2"), entry("c", b"3")))
    unpack(tmp_path, read=lambda size: whole.read(min(size, 37)))

    assert (tmp_path / "a").read_bytes() == content
    assert (tmp_path / "c").read_bytes() == b"3"
