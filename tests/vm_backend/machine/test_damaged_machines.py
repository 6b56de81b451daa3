"""A machine whose files are cut, garbage or gone: it is put right, or it says what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.machines import BOOT, inspect, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.cli import Cli
    from support.world import World

pytestmark = [pytest.mark.vm, pytest.mark.network]

MADE_AGAIN = (
    "key", "key.pub", "host_key", "host_key.pub", "accelerator.json", "console.log", "qemu.log",
    "supervisor.log", "lock",
)  # fmt: skip


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def fill(path: Path) -> None:
    path.write_bytes(b"\xff{garbage\n" * 100)


def list_of_nothing(path: Path) -> None:
    path.write_text("[]")


DAMAGES: list[Callable[[Path], None]] = [cut, fill, list_of_nothing, Path.unlink]


def files(world: World) -> Path:
    return Path(world.root, "data/machines/default")


def test_what_can_be_made_again_is(own_world: World) -> None:
    start(own_world.wherry)
    own_world.wherry("machine", "stop")

    for first in range(2):
        for number, name in enumerate(MADE_AGAIN, first):
            if (path := files(own_world) / name).exists():
                DAMAGES[number % len(DAMAGES)](path)
        result = own_world.wherry("machine", "ssh", "default", "echo", "up", timeout=BOOT)
        assert result.lines == ["up"]
        own_world.wherry("machine", "stop")


@pytest.mark.parametrize("damage", [cut, fill, list_of_nothing])
def test_a_machine_whose_record_is_damaged_can_be_given_up(
    own_world: World, damage: Callable[[Path], None]
) -> None:
    wherry = own_world.wherry
    wherry("machine", "init")
    damage(files(own_world) / "machine.json")

    for words in (("machine", "start"), ("machine", "stop"), ("ps",)):
        result = wherry(*words, check=False)
        assert result.returncode == 1
        assert result.stderr.startswith(f"wherry: {files(own_world)}/machine.json is damaged")
        assert "wherry machine rm --force default" in result.stderr
    listed = wherry("machine", "ls", "--quiet")
    wherry("machine", "rm", "--force", "default")

    assert listed.lines == []
    assert "machine.json is damaged" in listed.stderr
    assert not files(own_world).exists()


@pytest.mark.parametrize("damage", [cut, fill, list_of_nothing])
def test_settings_that_are_damaged_are_made_anew_for_the_disk_that_is_there(
    own_world: World, damage: Callable[[Path], None]
) -> None:
    wherry = own_world.wherry
    wherry("machine", "init", "--disk", "3g", "--memory", "512m")
    with open(files(own_world) / "data.img", "wb") as disk:
        disk.truncate(3 << 30)
    damage(files(own_world) / "machine.json")

    mended = wherry("machine", "set", "--cpus=1")
    found = wherry("machine", "inspect", "-f", "{{.CPUs}} {{.Memory}} {{.Disk.Size}}")

    assert "machine.json is damaged" in mended.stderr
    assert found.stdout == f"1 {2 << 30} {3 << 30}\n"


def test_a_disk_that_is_none_is_left_as_it_is(own_world: World) -> None:
    wherry = own_world.wherry
    wherry("machine", "init", "--disk", "1g")
    disk = files(own_world) / "data.img"
    disk.write_bytes(b"something else" * 1000)

    result = wherry("ps", check=False, timeout=BOOT)

    assert result.returncode == 1
    assert "the machine's disk cannot be used: " in result.stderr
    assert disk.read_bytes()[:14] == b"something else"
    assert wherry("machine", "ls", "--format", "{{.State}}").lines == ["stopped"]
    disk.unlink()
    assert wherry("ps", "--quiet", timeout=BOOT).lines == []


def test_the_disk_is_kept_when_the_image_is_another(own_world: World) -> None:
    wherry = own_world.wherry
    image = Path(own_world.directory, "image")
    shutil.copytree(wherry.environment["WHERRY_GUEST"], image)
    wherry("machine", "init", "--image", str(image))
    wherry("volume", "create", "kept", timeout=BOOT)
    before = inspect(wherry)["Image"]
    manifest = image / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    told = wherry("machine", "set", "--image", str(image))
    wherry("machine", "restart", timeout=BOOT)

    assert told.stderr == (
        "wherry: machine default runs; the change takes effect when it is restarted\n"
    )
    assert inspect(wherry)["Image"] != before
    assert wherry("volume", "ls", "--quiet").lines == ["kept"]


def on_disk_of(size: str, world: World) -> Iterator[Path]:
    """The place of a world, which is a disk of that size until the test has ended."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", world.root], check=True)
    yield Path(world.root)
    world.wherry("machine", "rm", "--force", "default", check=False)
    subprocess.run(["umount", "--lazy", world.root], check=True)


@pytest.fixture
def small_disk(own_world: World) -> Iterator[Path]:
    """The place of a world that has room for a record and not for an image."""
    yield from on_disk_of("32m", own_world)


def test_a_full_disk_is_an_error_and_nothing_is_left_of_the_start(
    own_world: World, small_disk: Path
) -> None:
    wherry = own_world.wherry
    without_room = wherry("ps", check=False, timeout=BOOT)
    images = list((small_disk / "data/machines/.images").iterdir())
    filler = os.open(small_disk / "filler", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space"):
        while True:
            os.write(filler, b"x" * 4096)
    os.close(filler)
    full = wherry("machine", "init", "two", check=False)

    assert without_room.returncode == 1
    assert "wherry: cannot unpack the guest image" in without_room.stderr
    assert "No space left on device" in without_room.stderr
    assert [each.name for each in images] == ["lock"]
    assert full.returncode == 1
    assert full.stderr.startswith("wherry: cannot ")
    assert wherry("machine", "ls", "--format", "{{.Name}} {{.State}}").lines == ["default stopped"]


@pytest.fixture
def tight_disk(own_world: World) -> Iterator[Path]:
    """The place of a world that has room for a machine, and little for what it writes."""
    yield from on_disk_of("450m", own_world)


def test_a_disk_of_the_host_that_fills_up_is_told_of_and_can_be_mended(
    own_world: World, tight_disk: Path
) -> None:
    wherry = own_world.wherry
    start(wherry)
    wherry("volume", "create", "kept")
    wherry("machine", "ssh", "default", "sync")

    with open(tight_disk / "filler", "wb", buffering=0) as filler:
        with pytest.raises(OSError, match="No space"):
            while True:
                filler.write(b"x" * 4096)
        write = "dd if=/dev/urandom of=/var/lib/wherry/file bs=1M count=20; sync"
        wherry("machine", "ssh", "default", "sh", "-c", write, check=False, timeout=BOOT)
    during = wherry("ps", check=False, timeout=BOOT)
    (tight_disk / "filler").unlink()
    wherry("machine", "restart", timeout=BOOT)

    assert during.stderr.count("wherry: the host's disk has 0 MiB left, and what machine ") == 1
    after = wherry("volume", "ls", "--quiet")
    assert (after.lines, after.stderr) == (["kept"], "")


def _ask_for_memory(machine: Cli, size: int) -> None:
    """Have a machine's settings ask for so many MiB, as on a host that had them."""
    path = Path(str(inspect(machine)["Directory"])) / "machine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "memory": size}))


def test_more_memory_than_the_host_has_is_refused_when_it_is_asked_for(own_machine: Cli) -> None:
    made = own_machine("machine", "init", "--memory", "16384g", check=False)
    own_machine("machine", "init")
    set_ = own_machine("machine", "set", "--memory", "16384g", check=False)
    there = inspect(own_machine)["Memory"]
    _ask_for_memory(own_machine, 16384 * 1024)
    again = own_machine("machine", "restart", check=False)

    for refused in (made, set_, again):
        assert refused.returncode == 1
        assert refused.stderr.startswith(
            "wherry: a machine cannot have 16TiB of memory: this host has "
        )
    assert there == 2 << 30


def test_a_machine_with_more_memory_than_there_is_is_told_what_to_set(own_machine: Cli) -> None:
    own_machine("machine", "init")
    _ask_for_memory(own_machine, 16384 * 1024)

    refused = own_machine("ps", check=False, timeout=BOOT)

    assert refused.returncode == 1
    assert "wherry: QEMU ended with exit code 1: " in refused.stderr
    assert refused.stderr.endswith("\nwherry machine set --memory 2g default\n")
