"""A container's root may be the owner of the host's device nodes: it must not change them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE, as_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.cli import Cli

_FUSE = (10, 229)


@pytest.fixture(autouse=True)
def _nodes() -> Iterator[None]:
    """Puts the host's nodes right whatever a failing test has done to them."""
    names = ("/dev/null", "/dev/full")
    before = {name: os.stat(name) for name in names}
    yield
    after = {name: os.stat(name) for name in names}
    for name, status in before.items():
        if os.geteuid() == 0:
            os.chown(name, status.st_uid, status.st_gid)
            os.chmod(name, stat.S_IMODE(status.st_mode))
        assert (after[name].st_uid, after[name].st_gid) == (status.st_uid, status.st_gid)
        assert after[name].st_mode == status.st_mode


@pytest.mark.parametrize("change", ["chmod 600", "chown 7", "chgrp 7"])
@pytest.mark.parametrize("path", ["/dev/full", "/dev/null", "/proc/self/fd/0", "/proc/keys"])
def test_root_of_a_container_cannot_change_a_node_of_the_host(
    wherry: Cli, busybox_image: str, change: str, path: str
) -> None:
    wherry("run", OFFLINE, "--rm", busybox_image, *change.split(), path, check=False)


def test_user_of_a_container_does_not_become_owner_of_null(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", OFFLINE, "--rm", "--user", "33", busybox_image, "id", "-u")

    assert result.stdout == "33\n"


def test_devices_can_be_written_to(wherry: Cli, busybox_image: str) -> None:
    script = "echo x > /dev/null && head -c 3 /dev/zero | wc -c && ! echo x > /dev/full"

    result = wherry("run", OFFLINE, "--rm", busybox_image, "sh", "-c", script)

    assert result.stdout == "3\n"


def _can_open(number: tuple[int, int]) -> bool:
    path = f"/tmp/wherry-test-node-{os.getpid()}"
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(*number))
        os.close(os.open(path, os.O_RDWR))
    except OSError:
        return False
    finally:
        if os.path.exists(path):
            os.unlink(path)
    return True


@as_root
@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ((), "10"),
        (("--device-cgroup-rule", "c 10:* rw"), "00"),
        (("--device-cgroup-rule", "c 10:229 r"), "10"),
        (("--privileged",), "00"),
    ],
)
def test_node_that_a_container_makes_opens_only_what_it_was_given(
    wherry: Cli, busybox_image: str, options: tuple[str, ...], codes: str
) -> None:
    if not _can_open(_FUSE):
        pytest.skip("this machine has no fuse device, or root may not open it")
    script = (
        "mknod /fuse c 10 229; mknod /null c 1 3; (: <> /fuse) 2>/dev/null; printf $?;"
        " (: <> /null); printf $?"
    )

    result = wherry("run", "--network=host", "--rm", *options, busybox_image, "sh", "-c", script)

    assert result.stdout == codes


@as_root
def test_container_in_a_user_namespace_makes_no_nodes(wherry: Cli, busybox_image: str) -> None:
    result = wherry(
        "run", OFFLINE, "--rm", busybox_image, "mknod", "/null", "c", "1", "3", check=False
    )

    assert result.returncode == 1
    assert "not permitted" in result.stderr
