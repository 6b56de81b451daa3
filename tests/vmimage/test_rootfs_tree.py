"""A tree of entries: made out of tar archives, written as one."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from support.mirror import special, tar_of
from wherry.errors import CorruptState
from wherry_vmimage.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def tree() -> Iterator[Tree]:
    with Tree() as tree:
        yield tree


def unpack(tree: Tree, *members: tarfile.TarInfo | tuple[str, bytes]) -> list[str]:
    return tree.unpack(io.BytesIO(tar_of(members)))


def written(tree: Tree, newest: int | None = None) -> list[tarfile.TarInfo]:
    output = io.BytesIO()
    tree.write_tar(output, newest=newest)
    output.seek(0)
    with tarfile.open(fileobj=output) as tar:
        return tar.getmembers()


def test_owners_modes_and_devices_are_kept(tree: Tree) -> None:
    device = special("./dev/null", tarfile.CHRTYPE, mode=0o666)
    device.devmajor, device.devminor = 1, 3
    setuid = special("./bin", tarfile.DIRTYPE, mode=0o6755)
    setuid.uid, setuid.gid = 7, 42

    unpack(tree, special("./dev", tarfile.DIRTYPE), device, setuid)

    members = {member.name: member for member in written(tree)}
    assert (members["dev/null"].devmajor, members["dev/null"].devminor) == (1, 3)
    assert members["dev/null"].mode == 0o666
    assert (members["bin"].uid, members["bin"].gid, members["bin"].mode) == (7, 42, 0o6755)


def test_file_capabilities_are_kept(tree: Tree) -> None:
    name = "SCHILY.xattr.security.capability"
    info = tarfile.TarInfo("ping")
    info.pax_headers = {name: "\x01\0\0\x02 \udcff"}
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)

    tree.unpack(io.BytesIO(output.getvalue()))

    assert written(tree)[0].pax_headers[name] == info.pax_headers[name]


def test_path_through_a_link_lands_where_the_link_leads(tree: Tree) -> None:
    tree.directory("usr/bin")
    tree.symlink("bin", "usr/bin")

    listed = unpack(tree, special("./bin", tarfile.DIRTYPE), ("./bin/sh", b"shell"))

    assert listed == ["bin", "bin/sh"]
    assert tree.read("usr/bin/sh") == b"shell"
    assert [member.name for member in written(tree)] == ["bin", "usr", "usr/bin", "usr/bin/sh"]


@pytest.mark.parametrize("target", ["../../../etc", "/etc", "/../etc"])
def test_link_does_not_lead_out_of_the_tree(tree: Tree, target: str) -> None:
    tree.directory("etc")
    tree.symlink("var", target)

    unpack(tree, ("./var/passwd", b"inside"))

    assert tree.read("etc/passwd") == b"inside"


def test_loop_of_links_is_an_error(tree: Tree) -> None:
    tree.symlink("a", "b")
    tree.symlink("b", "a")

    with pytest.raises(CorruptState, match="too many links"):
        tree.file("a/file", b"")


@pytest.mark.parametrize("name", ["../outside", "./a/../../outside"])
def test_path_out_of_the_root_is_an_error(tree: Tree, name: str) -> None:
    with pytest.raises(CorruptState, match="leads out of the root"):
        unpack(tree, (name, b""))


def test_hard_link_out_of_the_root_is_an_error(tree: Tree) -> None:
    with pytest.raises(CorruptState, match="leads out of the root"):
        unpack(tree, special("./link", tarfile.LNKTYPE, "../../etc/shadow"))


def test_hard_link_to_nothing_is_an_error(tree: Tree) -> None:
    unpack(tree, special("./link", tarfile.LNKTYPE, "./nothing"))

    with pytest.raises(CorruptState, match="hard link to nothing"):
        written(tree)


def test_names_of_one_file_stay_names_of_one_file(tree: Tree) -> None:
    unpack(tree, ("./z/bin/tool", b"content"), special("./a", tarfile.LNKTYPE, "./z/bin/tool"))

    members = {member.name: member for member in written(tree)}
    assert members["a"].isreg()
    assert members["a"].size == 7
    assert members["z/bin/tool"].islnk()
    assert members["z/bin/tool"].linkname == "a"
    assert members["z/bin/tool"].mode == members["a"].mode == 0o755


def test_directory_stays_as_the_first_package_made_it(tree: Tree) -> None:
    unpack(tree, special("./tmp", tarfile.DIRTYPE, mode=0o1777))
    unpack(tree, special("./tmp", tarfile.DIRTYPE, mode=0o755))

    assert written(tree)[0].mode == 0o1777


def test_file_in_place_of_a_directory_is_an_error(tree: Tree) -> None:
    unpack(tree, special("./thing", tarfile.DIRTYPE))

    with pytest.raises(CorruptState, match="/thing is a directory in one package and a file"):
        unpack(tree, ("./thing", b""))


def test_file_below_a_file_is_an_error(tree: Tree) -> None:
    with pytest.raises(CorruptState, match="/thing is not a directory"):
        unpack(tree, ("./thing", b""), ("./thing/below", b""))


def test_same_entries_make_the_same_bytes_in_any_order() -> None:
    files = [("./b/two", b"2"), ("./a", b"1"), ("./b/one", b"1")]
    outputs = []
    for order in (files, files[::-1]):
        with Tree(mtime=5) as tree:
            unpack(tree, *order)
            output = io.BytesIO()
            tree.write_tar(output)
            outputs.append(output.getvalue())

    assert outputs[0] == outputs[1]


def test_nothing_is_newer_than_the_given_time(tree: Tree) -> None:
    unpack(tree, ("./file", b""))

    assert written(tree, newest=1000)[0].mtime == 1000


def test_what_is_unwanted_is_left_out_but_for_what_others_need(tree: Tree) -> None:
    unpack(
        tree,
        ("./doc/a/manual", b""),
        ("./doc/b/copyright", b""),
        ("./doc/linked", b"x"),
        special("./kept", tarfile.LNKTYPE, "./doc/linked"),
    )

    tree.remove(lambda path: path.startswith("doc/") and not path.endswith("copyright"))

    assert [member.name for member in written(tree)] == [
        "doc",
        "doc/b",
        "doc/b/copyright",
        "doc/linked",
        "kept",
    ]


def test_truncated_archive_is_an_error(tree: Tree) -> None:
    content = tar_of([("./file", b"x" * 5000)])

    with pytest.raises(CorruptState, match="archive is damaged"):
        tree.unpack(io.BytesIO(content[:2000]))
