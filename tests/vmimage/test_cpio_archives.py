"""A tree as an initramfs: what cpio finds in it."""

from __future__ import annotations

import io
import os
import stat
import subprocess
from typing import TYPE_CHECKING

from support.requirements import need_tool
from wherry_vmimage.cpio import write_cpio
from wherry_vmimage.tree import Tree

if TYPE_CHECKING:
    from pathlib import Path


def archive(tree: Tree) -> bytes:
    output = io.BytesIO()
    write_cpio(tree, output, mtime=1_700_000_000)
    return output.getvalue()


def test_cpio_extracts_what_was_written(tmp_path: Path) -> None:
    busybox = need_tool("busybox")
    with Tree() as tree:
        tree.file("bin/busybox", b"program" * 999, 0o755)
        tree.hardlink("bin/sh", "bin/busybox")
        tree.symlink("init", "bin/sh")
        tree.directory("tmp", 0o1777)
        tree.file("empty", b"")
        content = archive(tree)

    subprocess.run([busybox, "cpio", "-idm"], cwd=tmp_path, input=content, check=True)

    assert (tmp_path / "bin/busybox").read_bytes() == b"program" * 999
    assert (tmp_path / "bin/sh").read_bytes() == b"program" * 999
    assert os.readlink(tmp_path / "init") == "bin/sh"
    assert stat.S_IMODE((tmp_path / "bin/sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "tmp").stat().st_mode) == 0o1777
    assert (tmp_path / "empty").stat().st_size == 0
    assert (tmp_path / "bin/busybox").stat().st_mtime == 1_700_000_000
