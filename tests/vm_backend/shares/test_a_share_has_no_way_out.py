"""Whoever speaks SFTP to a share gets at what is below its root, and at nothing else."""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from support.sftp import Refused
from wherry_vm.shares import beneath, sftp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.sftp import Client

if sys.platform == "win32":
    pytest.skip("makes files of POSIX", allow_module_level=True)

NEW = sftp.OPEN_WRITE | sftp.OPEN_CREATE


@pytest.fixture(params=["in one call", "name by name"])
def client(
    connect: Callable[..., Client], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Client:
    """For both ways to get to a directory."""
    if request.param == "name by name":
        monkeypatch.setattr(beneath, "_openat2", None)
    elif beneath._openat2 is None:
        pytest.skip("this kernel has no openat2")
    return connect()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "secret").write_bytes(b"secret")
    return directory


@pytest.mark.parametrize(
    "path",
    ["/../outside/secret", "../outside/secret", "/a/../../outside/secret", "/..", "/a/..", "/\0"],
)
def test_a_path_with_dots_leads_nowhere(client: Client, outside: Path, path: str) -> None:
    with pytest.raises(Refused):
        client.open(path, sftp.OPEN_READ)
    with pytest.raises(Refused):
        client.path(sftp.LSTAT, path)
    with pytest.raises(Refused):
        client.path(sftp.REMOVE, path)
    with pytest.raises(Refused):
        client.extended("posix-rename@openssh.com", path, "/taken")

    assert (outside / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_is_never_followed(
    client: Client, root: Path, outside: Path, absolute: bool
) -> None:
    target = str(outside) if absolute else "../outside"
    client.path(sftp.SYMLINK, target, "/directory")
    client.path(sftp.SYMLINK, f"{target}/secret", "/file")

    for path in ("/file", "/directory/secret"):
        for flags in (sftp.OPEN_READ, NEW, NEW | sftp.OPEN_TRUNCATE):
            with pytest.raises(Refused):
                client.open(path, flags)
    for kind in (sftp.LSTAT, sftp.READLINK, sftp.REMOVE, sftp.OPENDIR):
        with pytest.raises(Refused):
            client.path(kind, "/directory/secret")
    with pytest.raises(Refused):
        client.path(sftp.OPENDIR, "/directory")
    with pytest.raises(Refused):
        client.open("/directory/new", NEW)
    with pytest.raises(Refused):
        client.extended("hardlink@openssh.com", "/file", "/taken")
    client.change("/file", 4, 0o777)
    client.change("/file", 8, 1, 1)

    status = (outside / "secret").stat()
    assert (status.st_mode & 0o777, status.st_nlink) != (0o777, 2)
    assert status.st_mtime > 1
    assert sorted(os.listdir(outside)) == ["secret"]
    assert sorted(os.listdir(root)) == ["directory", "file"]


def test_a_directory_that_is_swapped_for_a_link_is_not_left(
    client: Client, root: Path, outside: Path
) -> None:
    (root / "inside").mkdir()
    (root / "inside" / "secret").write_bytes(b"harmless")
    (root / "link").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        # Each name is always there: a directory of the share, or a link out of it.
        while not stop.is_set():
            for old, new in (
                ("inside", "x"),
                ("link", "inside"),
                ("inside", "link"),
                ("x", "inside"),
            ):
                os.rename(root / old, root / new)

    swapper = threading.Thread(target=swap)
    swapper.start()
    found = set()
    try:
        for number in range(600):
            try:
                found.add(client.read("/inside/secret"))
                client.open(f"/inside/new{number}", NEW)
            except Refused:
                found.add(b"refused")
    finally:
        stop.set()
        swapper.join()

    assert found <= {b"harmless", b"refused"}
    assert os.listdir(outside) == ["secret"]


def test_a_file_that_is_swapped_for_a_link_is_not_changed_outside(
    client: Client, root: Path, outside: Path
) -> None:
    secret = outside / "secret"
    secret.chmod(0o600)
    (root / "file").touch()
    (root / "link").symlink_to(secret)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for old, new in (("file", "x"), ("link", "file"), ("file", "link"), ("x", "file")):
                os.rename(root / old, root / new)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(400):
            for change in ((4, 0o666), (8, 5, 5), (2, 7, 7)):
                try:
                    client.change("/file", *change)
                except Refused:
                    pass
            try:
                client.open("/file", sftp.OPEN_WRITE | sftp.OPEN_TRUNCATE)
            except Refused:
                pass
    finally:
        stop.set()
        swapper.join()

    status = secret.stat()
    assert (status.st_mode & 0o777, status.st_size) == (0o600, 6)
    assert status.st_mtime > 5
    if sys.platform == "linux":
        assert os.listxattr(secret) == []


def test_fifos_sockets_and_devices_are_never_opened(client: Client, root: Path) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(root)
        listener.bind("socket")
        os.chdir(here)
    names = ["fifo", "socket"]
    if os.geteuid() == 0:
        os.mknod(root / "device", 0o20666, os.makedev(1, 3))
        names.append("device")

    for name in names:
        for flags in (sftp.OPEN_READ, sftp.OPEN_WRITE, NEW, sftp.OPEN_READ | sftp.OPEN_WRITE):
            with pytest.raises(Refused):
                client.open(f"/{name}", flags)
        with pytest.raises(Refused):
            client.extended("hardlink@openssh.com", f"/{name}", "/other")

    assert {"fifo", "socket"} <= client.list("/").keys()


def test_the_root_itself_stays(client: Client, root: Path) -> None:
    (root / "file").touch()
    for kind in (sftp.RMDIR, sftp.REMOVE):
        with pytest.raises(Refused):
            client.path(kind, "/")
    with pytest.raises(Refused):
        client.extended("posix-rename@openssh.com", "/", "/file/below")

    assert root.is_dir()


def test_a_hard_link_to_a_file_outside_is_the_host_s_to_make(
    client: Client, root: Path, outside: Path
) -> None:
    os.link(outside / "secret", root / "shared")
    with pytest.raises(Refused):
        client.extended("hardlink@openssh.com", "/../outside/secret", "/taken")

    assert client.read("/shared") == b"secret"
    assert not (root / "taken").exists()


def test_handles_are_closed_with_the_connection(connect: Callable[..., Client], root: Path) -> None:
    (root / "file").touch()
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    client = connect()
    for _ in range(50):
        client.open("/file", sftp.OPEN_READ)
        client.ask(sftp.OPENDIR, sftp.text(b"/"))
    client.close()

    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_handle_of_another_kind_is_refused(client: Client) -> None:
    handle = client.ask(sftp.OPENDIR, sftp.text(b"/")).text()
    for kind, rest in (
        (sftp.READ, struct.pack(">QI", 0, 10)),
        (sftp.WRITE, struct.pack(">Q", 0) + sftp.text(b"x")),
        (sftp.FSTAT, b""),
    ):
        with pytest.raises(Refused):
            client.ask(kind, sftp.text(handle), rest)
        with pytest.raises(Refused):
            client.ask(kind, sftp.text(b"none"), rest)
