"""`container:ID`: containers that share namespaces, and what lives in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.cli import Cli


@pytest.fixture
def donor(wherry: Cli, busybox_image: str) -> str:
    """A running container that shares what it has."""
    script = "echo shared >/dev/shm/file; sleep 1000 & wait"
    wherry("run", OFFLINE, "-d", "--init", "--name", "donor", "--ipc", "shareable",
           busybox_image, "sh", "-c", script)  # fmt: skip
    written = ("exec", "donor", "test", "-s", "/dev/shm/file")
    wait_until(lambda: wherry(*written, check=False).returncode == 0, Deadline(60, "the file"))
    return "donor"


def test_namespaces_of_another_container_are_joined(
    wherry: Cli, busybox_image: str, donor: str
) -> None:
    links = "for kind in user pid net ipc uts; do readlink /proc/self/ns/$kind; done"
    theirs = wherry("exec", donor, "sh", "-c", links).lines

    def joined(*options: str) -> list[str]:
        argv = ("run", "--rm", *options, busybox_image, "sh", "-c", links)
        return wherry(*argv).lines

    def shared(*options: str) -> list[bool]:
        return [one == other for one, other in zip(joined(*options), theirs, strict=True)]

    assert shared(OFFLINE, "--pid", f"container:{donor}") == [True, True, False, False, False]
    assert shared(OFFLINE, "--ipc", f"container:{donor}") == [True, False, False, True, False]
    assert shared("--network", f"container:{donor}") == [True, False, True, False, False]


def test_who_shares_a_network_shares_the_name(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "-d", "--init", "--name", "named", "-h", "lighter", busybox_image,
           "sleep", "1000")  # fmt: skip
    argv = ("run", "--rm", "--network", "container:named", busybox_image, "hostname")

    assert wherry(*argv).stdout == "lighter\n"


def test_shared_memory_is_that_of_the_other(wherry: Cli, busybox_image: str, donor: str) -> None:
    script = "cat /dev/shm/file; echo back >/dev/shm/file"
    argv = ("run", OFFLINE, "--rm", "--ipc", f"container:{donor}", busybox_image, "sh", "-c")

    assert wherry(*argv, script).stdout == "shared\n"
    assert wherry("exec", donor, "cat", "/dev/shm/file").stdout == "back\n"


def test_what_is_private_or_not_running_cannot_be_joined(wherry: Cli, busybox_image: str) -> None:
    wherry("create", OFFLINE, "--name", "private", busybox_image, "sleep", "1000")
    argv = ("run", OFFLINE, "--rm", "--ipc", "container:private", busybox_image, "true")

    refused = wherry(*argv, check=False)
    assert (refused.returncode, "it is not running" in refused.stderr) == (125, True)

    wherry("start", "private")
    refused = wherry(*argv, check=False)
    assert (refused.returncode, "non-shareable IPC" in refused.stderr) == (125, True)
    wherry("rm", "-f", "private")
