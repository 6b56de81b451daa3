"""docker's rules of `cp`: the name and the place of a copy."""

from __future__ import annotations

import pytest

from wherry.cli.transfer import split_argument
from wherry.engine.copy import Destination, Source, place, split_source
from wherry.errors import WherryError

FILE = Source(parent="/s", name="file", is_dir=False, called="file")
DIR = Source(parent="/s/dir", name=".", is_dir=True, called="dir")
CONTENTS = Source(parent="/s/dir", name=".", is_dir=True, called=".")


@pytest.mark.parametrize(
    ("source", "path", "there", "result"),
    [
        (FILE, "/d", "directory", ("/d", "file")),
        (FILE, "/d/other", "file", ("/d", "other")),
        (FILE, "/d/new", "nothing", ("/d", "new")),
        (DIR, "/d", "directory", ("/d", "dir")),
        (DIR, "/d/new", "nothing", ("/d", "new")),
        (DIR, "/d/new/", "nothing", ("/d", "new")),
        (CONTENTS, "/d", "directory", ("/d", ".")),
        (CONTENTS, "/d/new", "nothing", ("/d", "new")),
    ],
)
def test_a_copy_goes_where_docker_puts_it(
    source: Source, path: str, there: str, result: tuple[str, str]
) -> None:
    destination = Destination(path=path, exists=there != "nothing", is_dir=there == "directory")

    assert place(source, destination) == result


@pytest.mark.parametrize(
    ("source", "path", "there", "reason"),
    [
        (DIR, "/d/file", "file", "cannot copy directory"),
        (CONTENTS, "/d/file", "file", "cannot copy directory"),
        (FILE, "/d/new/", "nothing", "no such directory"),
        (FILE, "/d/new/.", "nothing", "no such directory"),
    ],
)
def test_a_copy_that_docker_refuses_is_refused(
    source: Source, path: str, there: str, reason: str
) -> None:
    destination = Destination(path=path, exists=there == "file", is_dir=False)

    with pytest.raises(WherryError, match=reason):
        place(source, destination)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/etc/passwd", ("/etc", "passwd", "passwd")),
        ("etc/passwd", ("/etc", "passwd", "passwd")),
        ("/etc", ("/", "etc", "etc")),
        ("/etc/", ("/etc", ".", "etc")),
        ("/etc/.", ("/etc", ".", ".")),
        ("/", ("/", ".", ".")),
        (".", ("/", ".", ".")),
        ("/a/../b", ("/", "b", "b")),
        ("../../etc", ("/", "etc", "etc")),
    ],
)
def test_a_path_of_a_container_says_what_is_copied(path: str, parts: tuple[str, str, str]) -> None:
    assert split_source(path) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("c1:/etc", ("c1", "/etc")),
        ("c1:etc", ("c1", "etc")),
        ("c1:", ("c1", "")),
        ("/a:b", ("", "/a:b")),
        ("./a:b", ("", "./a:b")),
        ("../a:b", ("", "../a:b")),
        ("dir/a:b", ("", "dir/a:b")),
        ("file", ("", "file")),
        ("-", ("", "-")),
        ("c1:/a:b", ("c1", "/a:b")),
    ],
)
def test_an_argument_is_a_path_of_the_host_or_of_a_container(
    text: str, parts: tuple[str, str]
) -> None:
    assert split_argument(text) == parts
