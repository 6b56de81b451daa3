"""What changes in a directory of the host is noticed, and wakes inotify on the other side."""

from __future__ import annotations

import ctypes
import os
import queue
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from support.requirements import need_tool
from support.waiting import Deadline, wait_until
from wherry_vm.machines import Share
from wherry_vm.shares import sftp
from wherry_vm.shares.announcing import AnnouncingTree
from wherry_vm.shares.mounts import options
from wherry_vm.shares.news import News, coalesce
from wherry_vm.shares.owners import Owners
from wherry_vm.shares.server import Server
from wherry_vm.shares.tree import open_tree
from wherry_vm.shares.watching import Change, open_watcher
from wherry_vm.shares.watching.polling import PollingWatcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from wherry_vm.shares.watching import Watcher

if sys.platform == "win32":
    pytest.skip("makes links", allow_module_level=True)


@pytest.fixture(params=["of the system", "that polls"])
def watch(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], queue.Queue[Change]]]:
    """`watch(directory)`: what changes there, for both kinds of watcher."""
    watchers: list[Watcher] = []

    def start(directory: Path) -> queue.Queue[Change]:
        changes: queue.Queue[Change] = queue.Queue()

        def tell(found: list[Change]) -> None:
            for each in found:
                changes.put(each)

        watcher: Watcher
        if request.param == "that polls":
            watcher = PollingWatcher(tell, interval=0.05)
        else:
            watcher = open_watcher(tell)
        watchers.append(watcher)
        watcher.watch({str(directory)})
        return changes

    yield start
    for watcher in watchers:
        watcher.close()


def test_changes_below_a_directory_are_told(
    watch: Callable[[Path], queue.Queue[Change]], root: Path
) -> None:
    (root / "below").mkdir()
    (root / "below" / "file").write_text("one")
    changes = watch(root)

    def next_of(name: str) -> str:
        while True:
            change = changes.get(timeout=60)
            if change.path == str(root / name):
                return change.kind

    (root / "below" / "file").write_text("one and two")
    assert next_of("below/file") == "modified"
    (root / "new").mkdir()
    assert next_of("new") == "created"
    (root / "new" / "file").touch()
    assert next_of("new/file") == "created"
    os.rename(root / "new" / "file", root / "moved")
    assert next_of("moved") == "created"
    (root / "moved").unlink()
    assert next_of("moved") in ("created", "modified", "deleted")


def test_what_is_no_longer_watched_is_not_told(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    changes: queue.Queue[list[Change]] = queue.Queue()
    watcher = open_watcher(changes.put)
    watcher.watch({str(root)})
    watcher.watch({str(other)})

    (root / "unseen").touch()
    (other / "seen").touch()

    assert changes.get(timeout=60)[0].path == str(other / "seen")
    watcher.close()


def test_steps_of_one_change_are_one() -> None:
    steps = [
        Change("/new", "created"),
        Change("/new", "modified"),
        Change("/old", "modified"),
        Change("/old", "attributes"),
        Change("/temporary", "created"),
        Change("/temporary", "deleted"),
    ]

    assert [(each.path, each.kind) for each in coalesce(steps)] == [
        ("/new", "created"),
        ("/old", "modified"),
        ("/temporary", "deleted"),
    ]


# ---- through sshfs, on this host ----

_NAMES = {
    0x2: "MODIFY", 0x4: "ATTRIB", 0x8: "CLOSE_WRITE", 0x80: "MOVED_TO", 0x100: "CREATE",
    0x200: "DELETE",
}  # fmt: skip


class Inotify:
    """What a program in a container is told of one directory."""

    def __init__(self, directory: Path) -> None:
        libc = ctypes.CDLL(None)
        self._descriptor = libc.inotify_init1(os.O_CLOEXEC)
        assert libc.inotify_add_watch(self._descriptor, os.fsencode(directory), sum(_NAMES)) > 0

    def expect(self, *events: str) -> None:
        """Wait until all of these have been told, in any order."""
        missing = set(events)
        while missing:
            ready, _, _ = select.select([self._descriptor], [], [], 60)
            assert ready, f"not told of {missing}"
            missing -= self.read()

    def read(self) -> set[str]:
        data = os.read(self._descriptor, 1 << 16)
        found, offset = set(), 0
        while offset < len(data):
            _, mask, _, size = struct.unpack_from("iIII", data, offset)
            name = data[offset + 16 : offset + 16 + size].rstrip(b"\0").decode()
            offset += 16 + size
            found |= {f"{text} {name}" for bit, text in _NAMES.items() if mask & bit}
        return found

    def is_silent(self, seconds: float) -> bool:
        return not select.select([self._descriptor], [], [], seconds)[0]

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def inotify(root: Path, tmp_path: Path) -> Iterator[Inotify]:
    """Of `root` as sshfs shows it, with the agent's part played here."""
    from wherry_vm.guest.news import enact

    sshfs = need_tool("sshfs")
    (root / "file").write_text("one")
    target = tmp_path / "mounted"
    target.mkdir()
    share = Share(source=str(root), target=str(target))
    ours, theirs = socket.socketpair()
    tree = AnnouncingTree(open_tree(str(root), Owners(str(tmp_path / "owners.db"), str(root))))
    server = threading.Thread(target=Server(ours, tree).run, daemon=True)
    server.start()
    process = subprocess.Popen(
        [sshfs, ":/", str(target), "-f", "-o", options(share)],
        stdin=theirs.fileno(),
        stdout=theirs.fileno(),
    )
    theirs.close()
    said: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def agent() -> None:
        while (message := said.get()) is not None:
            for change in message["changes"]:
                try:
                    enact(change)
                except OSError:
                    pass
            news.told(message["number"])

    news = News([(share, tree)], said.put)
    thread = threading.Thread(target=agent, daemon=True)
    thread.start()
    try:
        wait_until(
            lambda: process.poll() is not None or os.path.ismount(target), Deadline(60, "sshfs")
        )
        watched = Inotify(target)
        news.watch([str(target)])
        yield watched
        watched.close()
    finally:
        news.close()
        said.put(None)
        thread.join(60)
        subprocess.run(["umount", "-l", target], check=False, capture_output=True)
        process.terminate()
        process.wait()
        server.join(60)
        tree.close()


@pytest.mark.linux
def test_the_host_s_changes_wake_inotify(inotify: Inotify, root: Path) -> None:
    (root / "file").write_text("two")
    inotify.expect("MODIFY file", "CLOSE_WRITE file")
    (root / "new").write_text("new")
    inotify.expect("CREATE new", "CLOSE_WRITE new")
    (root / "directory").mkdir()
    inotify.expect("MOVED_TO directory")
    (root / "file").chmod(0o600)
    inotify.expect("ATTRIB file")
    (root / "link").symlink_to("file")
    inotify.expect("CREATE link")
    (root / "new").unlink()
    inotify.expect("DELETE new")
    (root / "directory").rmdir()
    inotify.expect("DELETE directory")


@pytest.mark.linux
def test_an_editor_s_save_wakes_inotify_and_is_seen(
    inotify: Inotify, root: Path, tmp_path: Path
) -> None:
    for number in range(3):
        (root / ".file.swp").write_text(f"saved {number}")
        os.replace(root / ".file.swp", root / "file")
        inotify.expect("MODIFY file", "CLOSE_WRITE file")

        assert (tmp_path / "mounted" / "file").read_text() == f"saved {number}"


@pytest.mark.linux
def test_nothing_on_the_host_is_changed_by_telling(inotify: Inotify, root: Path) -> None:
    (root / "file").write_text("two")
    before = (root / "file").stat()
    inotify.expect("CLOSE_WRITE file")
    (root / "other").write_text("")
    inotify.expect("CLOSE_WRITE other")

    after = (root / "file").stat()
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (
        before.st_mtime_ns,
        before.st_size,
        before.st_ino,
    )
    assert sorted(os.listdir(root)) == ["file", "other"]


@pytest.mark.linux
def test_the_guest_s_own_writes_are_not_told_twice(
    inotify: Inotify, root: Path, tmp_path: Path
) -> None:
    script = "echo own > own; rm own; mkdir d; rmdir d"
    subprocess.run(["sh", "-c", script], cwd=tmp_path / "mounted", check=True, timeout=60)
    inotify.expect("CREATE own", "MODIFY own", "DELETE own", "DELETE d")

    # What comes next is the host's: nothing was on its way before it.
    (root / "last").write_text("")
    seen: set[str] = set()
    while "CREATE last" not in seen:
        seen |= inotify.read()
    assert not any("own" in each or " d" in each for each in seen)


@pytest.mark.linux
@pytest.mark.parametrize(
    ("script", "event"),
    [
        ("rm own", "DELETE own"),
        ("echo more >>own", "MODIFY own"),
        ("echo other >new; mv new own", "MODIFY own"),
    ],
)
def test_what_the_host_changes_right_after_the_guest_is_told_and_seen(
    inotify: Inotify, root: Path, tmp_path: Path, script: str, event: str
) -> None:
    mounted = tmp_path / "mounted"
    subprocess.run(["sh", "-c", "echo own >own"], cwd=mounted, check=True, timeout=60)
    inotify.expect("CLOSE_WRITE own")

    # A build in a container, and then a checkout on the host: there is no second in between.
    subprocess.run(["sh", "-c", script], cwd=root, check=True, timeout=60)
    inotify.expect(event)

    assert (mounted / "own").exists() == (root / "own").exists()
    if (root / "own").exists():
        assert (mounted / "own").read_text() == (root / "own").read_text()


def test_what_the_guest_has_made_is_its_own_however_late_the_host_hears_of_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = AnnouncingTree(open_tree(str(root), Owners(str(tmp_path / "owners.db"), str(root))))
    tree.make_directory(b"/made", 0o755)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600)

    # Or it would be hidden from who made it, to be made once more.
    assert tree.is_own(b"/made")
    (root / "made").chmod(0o700)
    assert not tree.is_own(b"/made")
    tree.close()


def test_what_the_guest_goes_on_writing_is_its_own(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_tree(str(root), Owners(str(tmp_path / "owners.db"), str(root)))
    tree = AnnouncingTree(place)
    file = tree.open(b"/file", sftp.OPEN_WRITE | sftp.OPEN_CREATE, 0o644)
    looks = place.status

    def look_while_it_is_written(path: bytes) -> os.stat_result:
        monkeypatch.undo()
        file.write(b"more", 0)
        return looks(path)

    monkeypatch.setattr(place, "status", look_while_it_is_written)

    assert tree.is_own(b"/file")
    file.close()
    tree.close()


def test_who_makes_what_is_about_to_be_announced_finds_it(root: Path, tmp_path: Path) -> None:
    tree = AnnouncingTree(open_tree(str(root), Owners(str(tmp_path / "owners.db"), str(root))))
    (root / "file").write_text("")
    tree.expect(b"/file", "created")
    with pytest.raises(FileNotFoundError):
        tree.attributes(b"/file")

    tree.open(b"/file", sftp.OPEN_WRITE | sftp.OPEN_CREATE, 0o644).close()

    assert tree.attributes(b"/file")
    tree.close()


def test_what_was_told_is_the_guest_s_no_longer(root: Path, tmp_path: Path) -> None:
    tree = AnnouncingTree(open_tree(str(root), Owners(str(tmp_path / "owners.db"), str(root))))
    (root / "file").write_text("")
    tree.remove(b"/file")
    assert tree.is_own(b"/file")

    (root / "file").write_text("again")
    tree.expect(b"/file", "created")
    tree.done(b"/file")
    (root / "file").unlink()

    # It is gone as after the guest's own removal, but the guest has heard of it since.
    assert not tree.is_own(b"/file")
    tree.close()


def test_what_is_in_a_directory_that_the_guest_moves_comes_along(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = open_tree(str(root), Owners(str(tmp_path / "owners.db"), str(root)))
    tree = AnnouncingTree(place)
    (root / "old" / "below").mkdir(parents=True)
    (root / "old" / "below" / "file").write_text("")
    rename, told = place.rename, []

    def rename_and_look(old: bytes, new: bytes, *, replace: bool) -> None:
        rename(old, new, replace=replace)
        told.append(tree.is_own(b"/new/below/file"))

    monkeypatch.setattr(place, "rename", rename_and_look)
    tree.rename(b"/old", b"/new", replace=True)

    assert told == [True]
    assert tree.is_own(b"/new/below/file")
    assert not tree.is_own(b"/other")
    (root / "new").rename(root / "elsewhere")
    (root / "new" / "below").mkdir(parents=True)
    (root / "new" / "below" / "file").write_text("")
    assert not tree.is_own(b"/new/below/file")
    tree.close()


def test_a_file_that_is_announced_as_deleted_and_is_there_again_is_kept(
    root: Path, tmp_path: Path
) -> None:
    tree = AnnouncingTree(open_tree(str(root), Owners(str(tmp_path / "owners.db"), str(root))))
    tree.expect(b"/file", "deleted")
    assert tree.attributes(b"/file")
    (root / "file").write_text("again")

    tree.remove(b"/file")
    tree.done(b"/file")

    assert (root / "file").read_text() == "again"
    tree.remove(b"/file")
    assert not (root / "file").exists()
    tree.close()


@pytest.mark.parametrize("is_directory", [False, True])
def test_what_has_been_removed_once_more_is_gone_before_all_is_told(
    root: Path, tmp_path: Path, is_directory: bool
) -> None:
    tree = AnnouncingTree(open_tree(str(root), Owners(str(tmp_path / "owners.db"), str(root))))
    tree.expect(b"/moved", "deleted", is_directory=is_directory)
    assert tree.attributes(b"/moved")

    (tree.remove_directory if is_directory else tree.remove)(b"/moved")

    # Who polls would see it for as long as the guest believes what it has seen.
    with pytest.raises(FileNotFoundError):
        tree.attributes(b"/moved")
    # The host may have made it anew, and the agent be late.
    (root / "moved").write_text("again")
    tree.remove(b"/moved")
    assert (root / "moved").read_text() == "again"
    tree.close()


def test_a_file_that_is_announced_as_made_cannot_be_made_twice(root: Path, tmp_path: Path) -> None:
    tree = AnnouncingTree(open_tree(str(root), Owners(str(tmp_path / "owners.db"), str(root))))
    (root / "lock").write_text("held")
    tree.expect(b"/lock", "created")

    with pytest.raises(FileNotFoundError):
        tree.attributes(b"/lock")
    with pytest.raises(FileExistsError):
        tree.open(b"/lock", sftp.OPEN_WRITE | sftp.OPEN_CREATE | sftp.OPEN_EXCLUSIVE, 0o644)
    tree.link(f"/{tree.token}-file".encode(), b"/lock")

    assert tree.attributes(b"/lock")
    assert (root / "lock").read_text() == "held"
    tree.close()
