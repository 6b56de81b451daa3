"""Files and words of an image, and of whoever runs it, that would like to be more than that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE

if TYPE_CHECKING:
    from support.cli import Cli


def test_annotation_does_not_decide_who_runs(wherry: Cli, busybox_image: str) -> None:
    annotations = ("org.wherry.user=33", "org.wherry.groups=44")
    options = [word for text in annotations for word in ("--annotation", text)]

    result = wherry("run", OFFLINE, "--rm", *options, busybox_image, "id")

    assert result.stdout.startswith("uid=0(root) gid=0(root)")
    assert "44" not in result.stdout


@pytest.mark.parametrize(
    "make",
    [
        "rm /etc/passwd; mkfifo /etc/passwd",
        "rm /etc/passwd; ln -s /dev/zero /etc/passwd",
        "echo x:x:4294967296:99999999999999999999::/:/ > /etc/passwd",
        "head -c 20000000 /dev/zero > /etc/passwd",
        "printf 'y:x:5:5:a\\fx:x:0:0::/:/bin/sh\\n' > /etc/passwd",
    ],
    ids=["fifo", "zero", "large ids", "large file", "line within a line"],
)
def test_user_is_looked_up_in_a_hostile_file(wherry: Cli, busybox_image: str, make: str) -> None:
    script = f"{make}; touch /made; while :; do sleep 1000; done"
    wherry("run", OFFLINE, "-d", "--name", "hostile", busybox_image, "sh", "-c", script)
    try:
        wherry("exec", "hostile", "sh", "-c", "until [ -e /made ]; do :; done", timeout=60)
        result = wherry("exec", "--user", "x", "hostile", "true", check=False, timeout=60)
    finally:
        wherry("rm", "-f", "hostile")

    assert "unable to find user x: no matching entries in passwd file" in result.stderr


@pytest.mark.parametrize(
    "user",
    ["\u0663", "\u00b2", "-1", "99999999999999999999", "9" * 5000, "0x10", "1_0"],
    ids=lambda user: user[:20],
)
def test_number_that_is_none_is_no_user(wherry: Cli, busybox_image: str, user: str) -> None:
    result = wherry("run", OFFLINE, "--rm", f"--user={user}", busybox_image, "id", check=False)

    assert result.returncode == 125
    assert "Error: " not in result.stderr


def test_process_that_joins_shows_nothing_of_the_host(wherry: Cli, busybox_image: str) -> None:
    # Everything that a container sees of the processes that come in from outside.
    script = (
        "while :; do for p in /proc/[0-9]*; do readlink $p/exe; done;"
        " [ -e /end ] && break; done | grep -v busybox | sort -u > /seen; touch /over;"
        " while :; do sleep 1000; done"
    )
    wherry(
        "run", OFFLINE, "-d", "--name", "watcher", "--cap-add", "SYS_PTRACE",
        busybox_image, "sh", "-c", script,
    )  # fmt: skip
    try:
        for _ in range(10):
            wherry("exec", "watcher", "true")
        wherry("exec", "watcher", "sh", "-c", "touch /end; until [ -e /over ]; do :; done")
        seen = wherry("exec", "watcher", "cat", "/seen").lines
    finally:
        wherry("rm", "-f", "watcher")

    assert [link for link in seen if not link.startswith(("/bin/", "/memfd:"))] == []
