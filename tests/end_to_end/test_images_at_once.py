"""Many processes that bring, commit, save and remove images at once leave a whole store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from support.busybox import busybox_archive
from support.settings import OFFLINE, as_root

if TYPE_CHECKING:
    import subprocess

    from support.cli import Cli

pytestmark = as_root


def all_of(processes: list[subprocess.Popen[bytes]]) -> list[tuple[int, bytes]]:
    """How each of them ended."""
    ended = []
    for process in processes:
        _, errors = process.communicate(timeout=120)
        ended.append((process.returncode, errors))
    return ended


def loading(wherry: Cli, directory: str, name: str) -> subprocess.Popen[bytes]:
    path = f"{directory}/{name}.tar"
    with open(path, "wb") as file:
        file.write(busybox_archive(f"{name}:1", files={"own": name.encode() * 1000}))
    return wherry.start("load", "-i", path)


def test_loads_of_one_image_and_collections_meanwhile(wherry: Cli, host_dir: str) -> None:
    path = os.path.join(host_dir, "busybox.tar")
    with open(path, "wb") as file:
        file.write(busybox_archive("busybox:1"))
    loads = [wherry.start("load", "-i", path) for _ in range(8)]
    prunes = [wherry.start("image", "prune", "-f") for _ in range(8)]

    assert {code for code, _ in all_of([*loads, *prunes])} == {0}

    assert wherry("system", "check").lines == []
    assert wherry("run", "--rm", OFFLINE, "busybox:1", "echo", "ok").lines == ["ok"]


def test_images_come_and_go_at_once(wherry: Cli, host_dir: str) -> None:
    old = [f"old{number}" for number in range(4)]
    new = [f"new{number}" for number in range(4)]
    assert {code for code, _ in all_of([loading(wherry, host_dir, name) for name in old])} == {0}

    processes = [loading(wherry, host_dir, name) for name in new]
    processes += [wherry.start("rmi", f"{name}:1") for name in old]
    processes += [
        wherry.start("save", "-o", f"{host_dir}/{name}-saved", f"{name}:1") for name in old
    ]
    ended = all_of(processes)

    # What was removed before it was saved is said to be missing, and nothing else goes wrong.
    assert {code for code, _ in ended[:8]} == {0}
    for code, errors in ended[8:]:
        assert code == 0 or b"No such image" in errors, errors
    assert wherry("system", "check").lines == []
    assert sorted(wherry("images", "--format", "{{.Repository}}").lines) == new
    for name in new:
        assert wherry("run", "--rm", OFFLINE, f"{name}:1", "head", "-c4", "/own").stdout == name


def test_commits_of_one_container_at_once(wherry: Cli, busybox_image: str) -> None:
    script = "dd if=/dev/urandom of=/big bs=1M count=2 2>/dev/null"
    wherry("run", "--name", "box", OFFLINE, busybox_image, "sh", "-c", script)

    commits = [wherry.start("commit", "box", f"made{number}") for number in range(6)]
    prunes = [wherry.start("image", "prune", "-f") for _ in range(3)]

    assert {code for code, _ in all_of([*commits, *prunes])} == {0}
    assert wherry("system", "check").lines == []
    for number in range(6):
        assert wherry("run", "--rm", OFFLINE, f"made{number}", "stat", "-c%s", "/big").stdout
