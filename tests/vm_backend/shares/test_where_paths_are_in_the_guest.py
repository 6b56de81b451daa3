"""A path of the host, as the guest has it: the same, but for drives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wherry.cli.host import with_paths
from wherry.cli.run import run
from wherry.errors import UsageError
from wherry_vm.machines import Machine, Settings, Share
from wherry_vm.shares.finding import finder
from wherry_vm.shares.places import guest_path, in_order, is_free, place
from wherry_vm.shares.windows_names import from_windows, long_path, to_windows

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("host", "guest"),
    [
        ("/home/ann", "/home/ann"),
        ("/Users/ann/a b", "/Users/ann/a b"),
        ("/home/ann/back\\slash", "/home/ann/back\\slash"),
        ("C:\\Users\\x", "/c/Users/x"),
        ("c:/Users/x/", "/c/Users/x"),
        ("D:\\", "/d"),
        ("\\\\?\\C:\\Users\\x", "/c/Users/x"),
        ("\\\\server\\share\\x", "/server/share/x"),
        ("\\\\?\\UNC\\server\\share\\x", "/server/share/x"),
    ],
)
def test_a_path_of_the_host_has_one_in_the_guest(host: str, guest: str) -> None:
    assert guest_path(host) == guest


SHARES = (
    Share(source="/home/ann", target="/home/ann"),
    Share(source="C:\\Users\\x", target="/c/Users/x"),
)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/home/ann", "/home/ann"),
        ("/home/ann/src/a", "/home/ann/src/a"),
        ("/home/anne", None),
        ("/home", None),
        ("/", None),
        ("C:\\Users\\x\\a\\b", "/c/Users/x/a/b"),
        ("C:\\Users\\y", None),
        ("/home/ann/../bob", None),
    ],
)
def test_a_path_is_found_in_the_share_that_holds_it(path: str, found: str | None) -> None:
    assert place(path, SHARES) == found


@pytest.mark.parametrize(
    "target",
    ["/", "/etc", "/usr/local", "/var", "/var/lib/wherry", "/run/user/1000", "/dev/shm"],
)
def test_what_the_guest_needs_itself_is_not_hidden(target: str) -> None:
    assert not is_free(target)


@pytest.mark.parametrize(
    "target", ["/root", "/home", "/Users", "/c/Users/x", "/tmp", "/tmp/x", "/var/home/x"]
)
def test_other_places_are_free(target: str) -> None:
    assert is_free(target)


def test_a_share_inside_another_is_mounted_after_it() -> None:
    shares = [Share(source=path, target=path) for path in ("/a/b/c", "/d", "/a")]

    assert [each.target for each in in_order(shares)] == ["/d", "/a", "/a/b/c"]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (b"plain.txt", "plain.txt"),
        (b"a:b", "a\uf03ab"),
        (b"what?", "what\uf03f"),
        (b"aux", "\uf061ux"),
        (b"COM1.txt", "\uf043OM1.txt"),
        (b"console", "console"),
        (b"dot.", "dot\uf02e"),
        (b"space ", "space\uf020"),
        (b"back\\slash", "back\uf05cslash"),
        ("ä".encode(), "ä"),
    ],
)
def test_a_name_that_windows_cannot_have_is_kept_under_another(name: bytes, kept: str) -> None:
    assert to_windows(name) == kept
    assert from_windows(kept) == name


@pytest.mark.parametrize(
    ("path", "long"),
    [
        ("C:\\Users\\x", "\\\\?\\C:\\Users\\x"),
        ("\\\\server\\share", "\\\\?\\UNC\\server\\share"),
        ("\\\\?\\C:\\x", "\\\\?\\C:\\x"),
    ],
)
def test_a_long_path_has_no_limit(path: str, long: str) -> None:
    assert long_path(path) == long


def test_a_command_says_where_the_guest_finds_its_paths() -> None:
    given = run.parse(
        ["-v", "/home/ann/src:/src:ro", "-v", "data:/data", "-v", "C:\\Users\\x:/c",
         "--mount", "type=bind,source=/home/ann,target=/h", "--mount", "type=tmpfs,target=/t",
         "image", "cat"]
    )  # fmt: skip

    words = run.argv(**with_paths(given, lambda path: f"/found{guest_path(path)}"))

    text = " ".join(words)
    assert "/found/home/ann/src:/src:ro" in text
    assert "data:/data" in text
    assert "/found/c/Users/x:/c" in text
    assert "source=/found/home/ann" in text
    assert "/found" not in text.partition("type=tmpfs")[2].partition(" ")[0]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """One that shares a directory called `shared`."""
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path / "root"))
    shared = tmp_path.resolve() / "shared"
    shared.mkdir()
    share = Share(source=str(shared), target=guest_path(str(shared)))
    return Machine(name="default", settings=Settings(shares=(share,)))


def test_a_path_in_no_share_is_refused_with_what_would_share_it(
    machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()

    with pytest.raises(UsageError) as refused:
        finder(machine)(str(tmp_path / "other"))

    assert f"--share {tmp_path}/other" in (refused.value.hint or "")
    assert f"--share {tmp_path.resolve()}/shared" in (refused.value.hint or "")


def test_a_link_out_of_a_share_is_followed_here(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "shared" / "inside").mkdir()
    (tmp_path / "shared" / "link").symlink_to("inside")
    (tmp_path / "shared" / "out").symlink_to("/etc")
    find = finder(machine)

    assert find(str(tmp_path / "shared" / "link")).endswith("/shared/inside")
    assert find(str(tmp_path / "shared" / "new" / "one")).endswith("/shared/new/one")
    with pytest.raises(UsageError):
        find(str(tmp_path / "shared" / "out"))
