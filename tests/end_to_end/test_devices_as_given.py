"""`--device`: one device, with another name or less access, or a directory of them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE, as_root

if TYPE_CHECKING:
    from support.cli import Cli

RUN = ("run", "--rm", OFFLINE)


def test_device_has_the_name_that_it_was_given(wherry: Cli, busybox_image: str) -> None:
    script = "head -c 4 /dev/of/zeros | wc -c"

    result = wherry(*RUN, "--device", "/dev/zero:/dev/of/zeros", busybox_image, "sh", "-c", script)

    assert result.stdout == "4\n"


@as_root
def test_directory_brings_all_devices_below_it_and_nothing_else(
    wherry: Cli, busybox_image: str, host_dir: str
) -> None:
    os.makedirs(f"{host_dir}/vendor/deeper")
    os.mknod(f"{host_dir}/vendor/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(f"{host_dir}/vendor/deeper/zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    with open(f"{host_dir}/vendor/file", "w"):
        pass

    result = wherry(
        *RUN, "--device", f"{host_dir}/vendor:/dev/vendor", busybox_image,
        "sh", "-c", "cd /dev/vendor; find . -type c | sort; find . -type f",
    )  # fmt: skip

    assert result.lines == ["./deeper/zero", "./null"]


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("/dev/nowhere", 'gathering device information while adding custom device "/dev/nowhere"'),
        ("/etc/passwd", '"/etc/passwd" is not a device'),
        ("/dev/null:relative", "relative is not an absolute path"),
        ("null", "bad format for path: null"),
    ],
)
def test_what_is_no_device_is_refused_and_nothing_is_left(
    wherry: Cli, busybox_image: str, device: str, told: str
) -> None:
    result = wherry(*RUN, "--device", device, busybox_image, "true", check=False)

    assert result.returncode == 125
    assert told in result.stderr.splitlines()[0]
    assert wherry("ps", "-aq").stdout == ""
