"""`load`, `import` and `commit` killed on their way: what comes next finds all in order."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.busybox import busybox_archive, busybox_layer
from support.settings import OFFLINE, as_root
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.cli import Cli

pytestmark = as_root


@functools.cache
def archive() -> bytes:
    return busybox_archive("busybox:1", files={"second": os.urandom(1 << 20)})


def files_below(directory: str) -> int:
    """How many files and directories there are, though they come and go."""
    return sum(len(names) + len(files) for _, names, files in os.walk(directory))


def is_in_order(wherry: Cli, root: str) -> bool:
    """Nothing is damaged, and a collection leaves nothing of what was cut short."""
    assert wherry("system", "check").lines == []

    def is_clean() -> bool:
        # A process that the killed one had forked may hold the lock a moment longer.
        wherry("image", "prune", "-f")
        layers = Path(root, "data", "layers", "sha256")
        drafts = [path for path in layers.glob("*") if "." in path.name]
        return not drafts and not list(Path(root, "data", "images", "partial").glob("*"))

    wait_until(is_clean, Deadline(60, "a collection of what was cut short"))
    return True


@pytest.mark.parametrize("part", [0.001, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize(
    ("argv", "make_content"),
    [(("load",), archive), (("import", "-", "busybox:1"), busybox_layer)],
    ids=["load", "import"],
)
def test_what_has_read_a_part_leaves_nothing(
    wherry: Cli,
    wherry_root: str,
    argv: tuple[str, ...],
    make_content: Callable[[], bytes],
    part: float,
) -> None:
    content = make_content()
    process = wherry.start(*argv)
    assert process.stdin is not None
    # A pipe holds 64 KiB: all but so much has been read when this returns.
    process.stdin.write(content[: int(len(content) * part)])
    process.stdin.flush()
    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert wherry("images", "-q").lines == []
    assert is_in_order(wherry, wherry_root)
    wherry(*argv, input=content)
    assert wherry("run", "--rm", OFFLINE, "busybox:1", "echo", "ok").lines == ["ok"]


@pytest.mark.parametrize("moment", range(12))
def test_a_load_killed_while_it_stores_is_whole_or_not_there(
    wherry: Cli, wherry_root: str, moment: int
) -> None:
    """At each of these moments another file or directory has just been made."""
    process = wherry.start("load")
    assert process.stdin is not None
    process.stdin.write(archive())
    process.stdin.close()
    data = f"{wherry_root}/data"
    wait_until(
        lambda: process.poll() is not None or files_below(data) > moment * 4,
        Deadline(60, "another file"),
    )
    process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()

    assert is_in_order(wherry, wherry_root)
    wherry("load", input=archive())
    assert wherry("run", "--rm", OFFLINE, "busybox:1", "echo", "ok").lines == ["ok"]


def test_a_commit_that_is_killed_makes_no_image(
    wherry: Cli, wherry_root: str, busybox_image: str
) -> None:
    script = "mkdir /many; for name in $(seq 8000); do echo $name > /many/$name; done"
    wherry("run", "--name", "box", OFFLINE, busybox_image, "sh", "-c", script)
    process = wherry.start("commit", "box", "made")
    layers = Path(wherry_root, "data", "layers", "sha256")
    wait_until(lambda: any(layers.glob("commit.*.tmp/diff/*")), Deadline(60, "a layer"))
    process.kill()
    process.communicate()

    assert wherry("images", "--format", "{{.Repository}}").lines == ["busybox"]
    assert is_in_order(wherry, wherry_root)
    wherry("commit", "box", "made")
    assert wherry("run", "--rm", OFFLINE, "made", "sh", "-c", "ls /many | wc -l").lines == ["8000"]
