"""Devices by the Container Device Interface, with specifications of our own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.settings import OFFLINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.cli import Cli
    from support.outside import Outside

RUN = ("run", "--rm", OFFLINE)


@pytest.fixture
def install(outside: Outside) -> Iterator[Callable[..., str]]:
    """`install(device={…}, common={…}, kind=…, name=…)` writes a specification; the device."""
    if outside("id", "-u") != "0\n":
        pytest.skip("only root writes to /run/cdi")
    outside("mkdir", "-p", "/run/cdi")
    made: list[str] = []

    def write(
        device: dict[str, Any],
        common: dict[str, Any] | None = None,
        vendor: str = "wherry-test.com/thing",
        name: str = "one",
    ) -> str:
        kind = f"{vendor}-{os.getpid()}" if vendor.startswith("wherry") else vendor
        path = f"/run/cdi/wherry-test-{os.getpid()}-{len(made)}.json"
        made.append(path)
        document = {
            "cdiVersion": "0.6.0",
            "kind": kind,
            "containerEdits": common or {},
            "devices": [{"name": name, "containerEdits": device}],
        }
        outside("sh", "-c", f"cat >{path} <<'END'\n{json.dumps(document)}\nEND")
        return f"{kind}={name}"

    yield write
    if made:
        outside("rm", *made)


def test_device_brings_variables_files_and_nodes(
    wherry: Cli, busybox_image: str, install: Callable[..., str], host_dir: str
) -> None:
    Path(host_dir, "library").write_text("driver")
    device = install(
        {
            "env": ["PATH=/bin:/vendor", "VENDOR=yes"],
            "mounts": [
                {
                    "hostPath": f"{host_dir}/library",
                    "containerPath": "/usr/lib/vendor.so",
                    "options": ["ro", "nosuid", "nodev", "bind"],
                }
            ],
            "deviceNodes": [{"path": "/dev/vendor/zero", "hostPath": "/dev/zero"}],
        },
        common={"env": ["COMMON=yes"]},
    )
    script = (
        "echo $VENDOR $COMMON $PATH; cat /usr/lib/vendor.so; echo;"
        " head -c 3 /dev/vendor/zero | wc -c; : >> /usr/lib/vendor.so"
    )

    result = wherry(*RUN, "--device", device, busybox_image, "sh", "-c", script, check=False)

    assert result.lines == ["yes yes /bin:/vendor", "driver", "3"]
    assert "can't create /usr/lib/vendor.so" in result.stderr


def test_hooks_run_beside_the_container(
    wherry: Cli, busybox_image: str, install: Callable[..., str], host_dir: str
) -> None:
    told = Path(host_dir, "told")
    script = f'read -r line; echo "$0 $GIVEN" >> {told}'
    device = install(
        {
            "hooks": [
                {"hookName": name, "path": "/bin/sh", "args": ["sh", "-c", script, name],
                 "env": ["GIVEN=1"], "timeout": 10}
                for name in ("createRuntime", "poststop")
            ]
        }
    )  # fmt: skip

    wherry(*RUN, "--device", device, busybox_image, "true")

    assert told.read_text() == "createRuntime 1\npoststop 1\n"


def test_gpus_are_those_of_the_vendors_specification(
    wherry: Cli, outside: Outside, busybox_image: str, install: Callable[..., str]
) -> None:
    if outside("ls", "/etc/cdi"):
        pytest.skip("this machine has CDI specifications of its own")
    install({"env": ["GPU=all"]}, vendor="nvidia.com/gpu", name="0")
    argv = (busybox_image, "sh", "-c", "echo $GPU")

    assert wherry(*RUN, "--gpus", "all", *argv).stdout == "all\n"
    few = wherry(*RUN, "--gpus", "2", *argv, check=False)

    assert few.returncode == 125
    assert "2 GPUs were requested, but there are 1" in few.stderr


def test_device_that_is_in_no_specification_is_refused_and_nothing_is_left(
    wherry: Cli, busybox_image: str, install: Callable[..., str]
) -> None:
    known = install({})

    result = wherry(*RUN, "--device", "vendor.com/none=x", busybox_image, "true", check=False)

    assert result.returncode == 125
    first, second = result.stderr.splitlines()
    assert first.endswith("CDI device injection failed: unresolvable CDI devices vendor.com/none=x")
    assert known in second
    assert wherry("ps", "-aq").stdout == ""


def test_file_that_has_gone_is_told_of(
    wherry: Cli, busybox_image: str, install: Callable[..., str]
) -> None:
    device = install({"mounts": [{"hostPath": "/nowhere/lib.so", "containerPath": "/lib.so"}]})

    result = wherry(*RUN, "--device", device, busybox_image, "true", check=False)

    assert result.returncode == 125
    assert "/nowhere/lib.so does not exist" in result.stderr
    assert wherry("ps", "-aq").stdout == ""
