"""podman of an unprivileged user, with wherry as its runtime."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.busybox import busybox_layer
from support.cli import Cli
from support.podman import CONFIGURATION
from support.requirements import need_tool
from support.settings import OFFLINE, as_rootless

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.world import World

pytestmark = [as_rootless]

# Without a group that systemd has delegated.
_ALONE = (OFFLINE, "--cgroups=disabled")


@pytest.fixture
def podman(world: World) -> Iterator[Cli]:
    """podman over a store of its own, and the image `busybox`."""
    wherry, place = world.wherry, world.directory
    variables = {**wherry.account.environment, "WHERRY_ROOT": world.root}
    command = shlex.join(["env", *map("=".join, variables.items()), *wherry.account.command, "oci"])
    runtime = Path(place, "wherry-oci")
    runtime.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    runtime.chmod(0o755)
    configuration = Path(place, "containers.conf")
    configuration.write_text(CONFIGURATION.format(runtime=runtime))
    store = f"{place}/store"
    options = ("--root", store, "--runroot", f"{place}/run", "--storage-driver", "vfs")
    account = replace(wherry.account, command=(need_tool("podman"), *options))
    environment = {**wherry.environment, "CONTAINERS_CONF": str(configuration)}
    podman = Cli(account, environment, place)
    podman("import", "-", "busybox", input=busybox_layer())
    yield podman
    podman("rm", "--all", "--force", "--time", "0")
    podman("system", "migrate")  # ends the process that holds the user's namespaces
    wherry("unshare", "rm", "-rf", store, f"{place}/run")


def test_podman_runs_enters_and_removes_containers(podman: Cli, world: World) -> None:
    script = "id -u; cat /proc/self/uid_map; exit 6"
    result = podman("run", "--rm", *_ALONE, "busybox", "sh", "-c", script, check=False)

    assert (result.returncode, result.stderr) == (6, "")
    assert result.stdout.split()[:4] == ["0", "0", str(world.account.uid), "1"]

    podman("run", "-d", "--name", "box", *_ALONE, "busybox", "sleep", "1000")
    assert podman("exec", "box", "sh", "-c", "echo in; id -u").lines == ["in", "0"]
    assert podman("exec", "box", "sh", "-c", "exit 5", check=False).returncode == 5
    podman("rm", "-f", "-t", "0", "box")
    assert podman("ps", "-aq").lines == []
