"""The real sshfs against our server, on this host: what programs do works as on a disk."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from support.requirements import need_tool
from support.waiting import Deadline, wait_until
from wherry_vm.machines import Share
from wherry_vm.shares.mounts import options
from wherry_vm.shares.owners import Owners
from wherry_vm.shares.server import Server
from wherry_vm.shares.tree import open_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.linux


@pytest.fixture
def mounted(root: Path, tmp_path: Path) -> Iterator[Path]:
    """`root`, mounted by sshfs."""
    sshfs = need_tool("sshfs")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("needs /dev/fuse")
    target = tmp_path / "mounted"
    target.mkdir()
    ours, theirs = socket.socketpair()
    tree = open_tree(str(root), Owners(str(tmp_path / "owners.db"), str(root)))
    server = threading.Thread(target=Server(ours, tree).run, daemon=True)
    server.start()
    how = options(Share(source=str(root), target=str(target)))
    process = subprocess.Popen(
        [sshfs, ":/", str(target), "-f", "-o", how],
        stdin=theirs.fileno(),
        stdout=theirs.fileno(),
        stderr=subprocess.PIPE,
        text=True,
    )
    theirs.close()
    try:
        wait_until(
            lambda: process.poll() is not None or os.path.ismount(target), Deadline(60, "the mount")
        )
        if process.poll() is not None:
            assert process.stderr is not None
            reason = process.stderr.read()
            if "no_contain_symlinks" in reason:
                pytest.skip("needs an sshfs of 2026 or later")
            pytest.fail(reason)
        yield target
    finally:
        subprocess.run(["umount", "-l", target], check=False, capture_output=True)
        process.terminate()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
        server.join(60)
        tree.close()


def run(script: str, mounted: Path) -> str:
    """What a shell says in the mounted directory: in a process of its own, since a page
    fault in this one would keep the server's thread from being run."""
    done = subprocess.run(
        ["sh", "-euc", script],
        cwd=mounted,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_shell_works_in_it(mounted: Path, root: Path) -> None:
    said = run(
        """
        echo one > file; echo two >> file; cat file
        mkdir -p a/b; mv file a/b/moved; ln -s b/moved a/link; cat a/link
        ln a/b/moved hard
        ! mkdir a 2>/dev/null; ! rmdir a 2>/dev/null
        chmod 4750 hard; stat -c %a hard
        chown 70:71 hard; stat -c %u:%g hard
        touch -d @1000000000 hard; stat -c %Y hard
        truncate -s 100000 hard; stat -c %s hard
        """,
        mounted,
    )

    assert said.split() == [
        "one",
        "two",
        "one",
        "two",
        "4750",
        "70:71",
        "1000000000",
        "100000",
    ]
    assert (root / "a" / "b" / "moved").stat().st_size == 100000


def test_a_directory_is_not_moved_into_one_that_is_there(mounted: Path) -> None:
    program = (
        "import os; os.makedirs('full/kept'); os.mkdir('empty'); os.mkdir('other')\n"
        "os.rename('other', 'empty')\n"
        "try: os.rename('empty', 'full')\n"
        "except PermissionError: print(os.listdir('.'), os.listdir('full'))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=mounted,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    # As on another disk it would be copied there: programs do that by themselves.
    assert done.stdout.startswith("["), done.stderr
    assert done.stdout.endswith("['kept']\n")


def test_links_lead_where_their_text_says(mounted: Path, root: Path) -> None:
    (root / "absolute").symlink_to("/etc/hostname")
    (root / "up").symlink_to("../nowhere")

    assert (
        run("readlink absolute up; cat absolute >/dev/null", mounted)
        == "/etc/hostname\n../nowhere\n"
    )


def test_large_files_come_and_go_whole(mounted: Path, root: Path) -> None:
    (root / "given").write_bytes(os.urandom(5 << 20))

    run("cp given taken; sync; cmp given taken", mounted)

    assert (root / "taken").read_bytes() == (root / "given").read_bytes()


def test_memory_can_be_mapped(mounted: Path, root: Path) -> None:
    program = (
        "import mmap; file = open('mapped', 'w+b'); file.truncate(8192);"
        "memory = mmap.mmap(file.fileno(), 8192); memory[:5] = b'hello'; memory.flush()"
    )

    subprocess.run([sys.executable, "-c", program], cwd=mounted, check=True, timeout=60)

    assert (root / "mapped").read_bytes()[:5] == b"hello"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_finds_its_tree_unchanged(mounted: Path) -> None:
    said = run(
        """
        git init -q . && git config user.name a && git config user.email a@b
        for i in $(seq 40); do mkdir -p d$i; echo $i > d$i/file; done
        git add . && git commit -qm one && git status --porcelain && git fsck 2>&1
        """,
        mounted,
    )

    assert said == ""


def test_three_hundred_small_files(mounted: Path) -> None:
    run("for i in $(seq 300); do echo $i > f$i; done; cat f* | wc -l; rm f*", mounted)

    assert os.listdir(mounted) == []
