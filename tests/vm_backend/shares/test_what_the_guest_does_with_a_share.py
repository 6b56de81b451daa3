"""A shared directory by SFTP: what is written is there, what is asked for is remembered."""

from __future__ import annotations

import os
import stat
import struct
import sys
from typing import TYPE_CHECKING

import pytest

from support.sftp import Refused
from wherry_vm.shares import owners, sftp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.sftp import Client

if sys.platform == "win32":
    pytest.skip("reads modes of POSIX", allow_module_level=True)

NEW = sftp.OPEN_WRITE | sftp.OPEN_CREATE | sftp.OPEN_EXCLUSIVE


def test_extensions_that_sshfs_asks_for_are_offered(client: Client) -> None:
    for name in (b"posix-rename", b"statvfs", b"fstatvfs", b"hardlink", b"fsync", b"limits"):
        assert name + b"@openssh.com" in client.extensions


def test_what_is_written_is_on_the_host(client: Client, root: Path) -> None:
    client.write("/file", b"content")

    assert (root / "file").read_bytes() == b"content"
    assert client.read("/file") == b"content"
    assert client.stat("/file").size == 7


def test_answers_to_many_requests_carry_their_numbers(client: Client, root: Path) -> None:
    (root / "file").write_bytes(bytes(range(256)))
    handle = client.open("/file", sftp.OPEN_READ)

    sent = {
        client.send(sftp.READ, sftp.text(handle) + struct.pack(">QI", offset, 1)): offset
        for offset in range(200)
    }
    answers = [client.receive() for _ in sent]

    assert {number: body[-1] for _, number, body in answers} == sent


def test_what_is_not_in_memory_is_read_as_whole_as_what_is(client: Client, root: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("drops pages from memory")
    content = os.urandom(1 << 20)
    (root / "file").write_bytes(content)
    with (root / "file").open("rb+") as file:
        os.fsync(file.fileno())
        # Half of a request's bytes stay in memory, and half have to be waited for.
        for start in range(0, len(content), 1 << 16):
            os.posix_fadvise(file.fileno(), start, 1 << 15, os.POSIX_FADV_DONTNEED)
    handle = client.open("/file", sftp.OPEN_READ)

    def read(start: int) -> bytes:
        asked = sftp.text(handle) + struct.pack(">QI", start, 1 << 16)
        return client.ask(sftp.READ, asked).text()

    assert b"".join(map(read, range(0, len(content), 1 << 16))) == content
    with pytest.raises(Refused) as refused:
        read(len(content))
    assert refused.value.code == sftp.EOF


def test_a_path_is_looked_at_after_the_writes_before_it(client: Client) -> None:
    handle = client.open("/file", NEW)
    for block in range(50):
        data = sftp.text(handle) + struct.pack(">Q", block * 1000) + sftp.text(b"x" * 1000)
        client.send(sftp.WRITE, data)
    number = client.send(sftp.LSTAT, sftp.text(b"/file"))

    answers = [client.receive() for _ in range(51)]

    [(kind, _, body)] = [each for each in answers if each[1] == number]
    assert kind == sftp.ATTRS
    assert sftp.Reader(body).attributes().size == 50_000


def test_a_directory_is_listed_with_attributes(client: Client, root: Path) -> None:
    for number in range(300):
        (root / f"file{number}").write_bytes(b"x" * number)

    found = client.list("/")

    assert len(found) == 302
    assert found["file299"].size == 299


def test_a_file_is_root_s_until_it_is_given_away(client: Client, root: Path) -> None:
    (root / "file").touch()
    assert client.stat("/file").owner == (0, 0)

    client.change("/file", 2, 999, 998)

    assert client.stat("/file").owner == (999, 998)
    assert (root / "file").stat().st_uid == os.getuid()


@pytest.mark.parametrize("where", ["beside the file", "in the table"])
def test_an_owner_outlives_the_server_and_moves_with_the_file(
    connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "in the table":
        monkeypatch.setattr(owners, "_write_attribute", lambda _, __: False)
    client = connect()
    client.ask(sftp.MKDIR, sftp.text(b"/before"), struct.pack(">I", 0))
    client.write("/before/file", b"")
    client.change("/before/file", 2, 70, 71)
    client.extended("posix-rename@openssh.com", "/before", "/after")

    assert connect().stat("/after/file").owner == (70, 71)


def test_an_owner_in_the_table_is_not_the_next_file_s(
    client: Client, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "_write_attribute", lambda _, __: False)
    client.write("/file", b"")
    client.change("/file", 2, 70, 71)

    (root / "other").touch()
    os.replace(root / "other", root / "file")

    assert client.stat("/file").owner == (0, 0)


def test_what_is_made_in_a_directory_belongs_to_its_owner(client: Client) -> None:
    client.ask(sftp.MKDIR, sftp.text(b"/data"), struct.pack(">I", 0))
    client.change("/data", 2, 999, 999)

    client.write("/data/file", b"")
    client.ask(sftp.MKDIR, sftp.text(b"/data/below"), struct.pack(">I", 0))
    client.path(sftp.SYMLINK, "file", "/data/link")

    assert {each: found.owner for each, found in client.list("/data").items()} == dict.fromkeys(
        (".", "..", "file", "below", "link"), (999, 999)
    )


def test_the_permission_to_execute_is_the_host_s(client: Client, root: Path) -> None:
    (root / "script").touch(mode=0o755)
    client.write("/other", b"")

    client.change("/other", 4, 0o750)

    assert stat.S_IMODE(client.stat("/script").mode or 0) & 0o111
    assert stat.S_IMODE((root / "other").stat().st_mode) == 0o750


def test_set_user_id_is_remembered_and_never_set(client: Client, root: Path) -> None:
    client.write("/file", b"")

    client.change("/file", 4, 0o104755)

    assert client.stat("/file").mode == 0o104755
    assert stat.S_IMODE((root / "file").stat().st_mode) == 0o755


def test_times_are_set_and_fractions_kept(client: Client, root: Path) -> None:
    path = root / "file"
    path.touch()
    os.utime(path, ns=(1_000_000_000_123_456_789, 2_000_000_000_123_456_789))

    client.change("/file", 8, 1_000_000_000, 2_000_000_000)
    assert path.stat().st_atime_ns == 1_000_000_000_123_456_789
    assert path.stat().st_mtime_ns == 2_000_000_000_123_456_789

    client.change("/file", 8, 3, 1_500_000_000)
    assert (path.stat().st_atime, path.stat().st_mtime) == (3, 1_500_000_000)


def test_links_are_text(client: Client, root: Path) -> None:
    client.path(sftp.SYMLINK, "/etc/passwd", "/link")

    answer = client.path(sftp.READLINK, "/link")

    assert (answer.u32(), answer.text()) == (1, b"/etc/passwd")
    assert os.readlink(root / "link") == "/etc/passwd"
    assert stat.S_ISLNK(client.stat("/link").mode or 0)


def test_a_rename_replaces_only_where_it_is_asked_to(client: Client, root: Path) -> None:
    client.write("/one", b"1")
    client.write("/two", b"2")

    with pytest.raises(Refused):
        client.path(sftp.RENAME, "/one", "/two")
    client.extended("posix-rename@openssh.com", "/one", "/two")

    assert [each.name for each in root.iterdir()] == ["two"]
    assert (root / "two").read_bytes() == b"1"


def test_hard_links_are_made(client: Client, root: Path) -> None:
    client.write("/one", b"1")

    client.extended("hardlink@openssh.com", "/one", "/two")

    assert (root / "two").stat().st_nlink == 2


def test_fsync_and_statvfs_are_answered(client: Client) -> None:
    handle = client.open("/file", NEW)

    client.ask(sftp.EXTENDED, sftp.text(b"fsync@openssh.com"), sftp.text(handle))
    answer = client.extended("statvfs@openssh.com", "/")

    assert answer.u64() == os.statvfs("/").f_bsize


def test_appending_goes_to_the_end_as_it_is_on_the_host(client: Client, root: Path) -> None:
    client.write("/log", b"one\n")
    handle = client.open("/log", sftp.OPEN_WRITE | sftp.OPEN_APPEND)
    with (root / "log").open("ab") as file:
        file.write(b"two\n")

    client.ask(sftp.WRITE, sftp.text(handle), struct.pack(">Q", 4), sftp.text(b"three\n"))

    assert (root / "log").read_bytes() == b"one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("kind", "paths"),
    [
        (sftp.REMOVE, ["/file"]),
        (sftp.RMDIR, ["/directory"]),
        (sftp.RENAME, ["/file", "/other"]),
        (sftp.SYMLINK, ["/file", "/other"]),
    ],
)
def test_a_readonly_share_is_not_changed(
    connect: Callable[..., Client], root: Path, kind: int, paths: list[str]
) -> None:
    (root / "file").touch()
    (root / "directory").mkdir()
    client = connect(readonly=True)

    with pytest.raises(Refused) as refused:
        client.path(kind, *paths)
    for flags in (sftp.OPEN_WRITE, NEW, sftp.OPEN_READ | sftp.OPEN_TRUNCATE):
        with pytest.raises(Refused):
            client.open("/file", flags)
    with pytest.raises(Refused):
        client.change("/file", 4, 0o777)

    assert refused.value.code == sftp.PERMISSION_DENIED
    assert sorted(each.name for each in root.iterdir()) == ["directory", "file"]
    assert client.stat("/file").size == 0


@pytest.mark.parametrize(
    "packet",
    [b"\0\0\0\1\x03", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\6\x03\0\0\0\1\0"],
    ids=["without a number", "endless", "empty", "cut off"],
)
def test_what_is_no_packet_ends_the_connection_at_most(
    connect: Callable[..., Client], packet: bytes
) -> None:
    client = connect()

    client.stream.sendall(packet)

    assert connect().list("/").keys() == {".", ".."}
