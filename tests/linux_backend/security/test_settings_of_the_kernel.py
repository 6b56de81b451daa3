"""What of the kernel's own a container's root cannot write, whatever it is allowed to mount."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE, as_root, as_rootless

if TYPE_CHECKING:
    from support.cli import Cli

# What is written is what is there already.
_SCRIPT = (
    "old=$(cat /proc/sys/kernel/core_pattern); mount -o remount,rw /proc/sys; umount /proc/sys;"
    ' echo "$old" > /proc/sys/kernel/core_pattern && echo written;'
    " mkdir /new; mount -t proc proc /new &&"
    ' echo "$old" > /new/sys/kernel/core_pattern && echo written;'
    " mount -o remount,rw /sys; echo > /sys/kernel/uevent_helper && echo written;"
    " true"
)


@as_root
@pytest.mark.parametrize("options", [(), ("--userns", "auto", "--cap-add", "SYS_ADMIN")])
def test_ids_of_the_host_are_not_enough(
    wherry: Cli, busybox_image: str, options: tuple[str, ...]
) -> None:
    result = wherry("run", OFFLINE, "--rm", *options, busybox_image, "sh", "-c", _SCRIPT)

    assert "written" not in result.stdout


@as_rootless
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--privileged",),
        ("--cap-add", "ALL"),
        ("--security-opt", "systempaths=unconfined", "--security-opt", "seccomp=unconfined"),
    ],
)
def test_an_unprivileged_user_gives_nobody_the_host(
    wherry: Cli, busybox_image: str, options: tuple[str, ...]
) -> None:
    result = wherry("run", OFFLINE, "--rm", *options, busybox_image, "sh", "-c", _SCRIPT)

    assert "written" not in result.stdout
