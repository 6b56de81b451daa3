"""A tree as an erofs image: what the kernel finds in it."""

from __future__ import annotations

import io
import os
import stat
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from wherry_vmimage.erofs import write_erofs
from wherry_vmimage.tree import Entry, Tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIME = 1_700_000_000
CAPABILITY = b"\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"  # cap_net_bind_service=ep


def image_of(tree: Tree) -> bytes:
    output = io.BytesIO()
    write_erofs(tree, output, mtime=TIME)
    return output.getvalue()


@contextmanager
def mounted(image: bytes, directory: Path) -> Iterator[Path]:
    file, target = directory / "image", directory / "mounted"
    file.write_bytes(image)
    target.mkdir()
    result = subprocess.run(
        ["mount", "-t", "erofs", "-o", "loop,ro", str(file), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unknown filesystem type" in result.stderr or "loop device" in result.stderr:
        pytest.skip(f"needs a kernel that mounts erofs from a file: {result.stderr.strip()}")
    assert result.returncode == 0, result.stderr
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


@pytest.mark.linux
def test_kernel_finds_every_kind_of_file(tmp_path: Path) -> None:
    with Tree() as tree:
        tree.directory("tmp", 0o1777)
        tree.file("etc/shadow", b"secret", 0o640)
        tree.hardlink("etc/shadow-", "etc/shadow")
        tree.symlink("bin", "usr/bin")
        tree.add("dev/disk", Entry(kind="block", mode=0o660, device=(259, 300), gid=6))
        tree.add("dev/null", Entry(kind="char", mode=0o666, device=(1, 3)))
        tree.add("pipe", Entry(kind="fifo", mode=0o600, uid=70_000, gid=80_000))
        image = image_of(tree)

    with mounted(image, tmp_path) as root:
        shadow, disk, pipe = ((root / name).stat() for name in ("etc/shadow", "dev/disk", "pipe"))
        assert (root / "tmp").stat().st_mode == stat.S_IFDIR | 0o1777
        assert (shadow.st_mode, shadow.st_nlink) == (stat.S_IFREG | 0o640, 2)
        assert (root / "etc/shadow-").stat().st_ino == shadow.st_ino
        assert (root / "etc/shadow-").read_bytes() == b"secret"
        assert os.readlink(root / "bin") == "usr/bin"
        assert (os.major(disk.st_rdev), os.minor(disk.st_rdev), disk.st_gid) == (259, 300, 6)
        assert stat.S_ISBLK(disk.st_mode)
        assert (root / "dev/null").stat().st_rdev == os.makedev(1, 3)
        assert stat.S_ISFIFO(pipe.st_mode)
        assert (pipe.st_uid, pipe.st_gid) == (70_000, 80_000)
        assert root.stat().st_nlink == 5  # its own two names, and one in each directory
        assert {path.lstat().st_mtime for path in root.rglob("*")} == {TIME}


@pytest.mark.linux
def test_kernel_finds_capabilities_and_attributes(tmp_path: Path) -> None:
    long = {"user.long": b"v" * 3000, "security.capability": CAPABILITY}
    with Tree() as tree:
        tree.add("ping", Entry(kind="file", mode=0o755, xattrs=long), b"x" * 2000)
        tree.add("none", Entry(kind="file", mode=0o755), b"x")
        image = image_of(tree)

    with mounted(image, tmp_path) as root:
        assert os.getxattr(root / "ping", "security.capability") == CAPABILITY
        assert os.getxattr(root / "ping", "user.long") == b"v" * 3000
        assert (root / "ping").read_bytes() == b"x" * 2000
        assert os.listxattr(root / "none") == []


@pytest.mark.linux
def test_kernel_finds_a_large_tree(tmp_path: Path) -> None:
    content = {
        f"{'-.a!'[i % 4]}dir{i % 7}/file-{i:05}": bytes([i % 256]) * (i * 37 % 9000)
        for i in range(3000)
    }
    with Tree() as tree:
        for path, value in content.items():
            tree.file(path, value)
        image = image_of(tree)

    with mounted(image, tmp_path) as root:
        found = {
            str(path.relative_to(root)): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        }

    assert found == content
