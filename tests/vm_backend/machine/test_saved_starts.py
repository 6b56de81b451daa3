"""A machine that has been started once goes on from there, and is another machine each time."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.machines import BOOT, inspect, start
from wherry_vm.qemu.host import boot_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.cli import Cli
    from support.world import World

pytestmark = [pytest.mark.vm, pytest.mark.network]

ONCE = """
cat /proc/sys/kernel/random/boot_id
head -c 16 /dev/urandom | od -A n -t x1
python3 -c 'import ssl; print(ssl.RAND_bytes(16).hex())'
"""
"""Asks a guest for what no other start of it may say."""


def asked(wherry: Cli) -> list[str]:
    return wherry("machine", "ssh", "default", "sh", "-c", ONCE, timeout=BOOT).lines


def has_booted(wherry: Cli) -> bool:
    """Whether the kernel has said at this start that it is up."""
    return "the kernel is up" in wherry("machine", "console").stdout


def stopped(wherry: Cli) -> Cli:
    wherry("machine", "stop", timeout=BOOT)
    return wherry


def saved(world: World) -> Path:
    return Path(world.root, "data/machines/default/start.state")


def test_what_is_once_a_start_is_another_each_time(own_world: World) -> None:
    wherry = own_world.wherry
    wherry("volume", "create", "kept", timeout=BOOT)
    answers = [asked(wherry)]
    booted = [has_booted(wherry)]
    for _ in range(2):
        answers.append(asked(stopped(wherry)))
        booted.append(has_booted(wherry))

    assert booted == [True, False, False]
    assert all(len(set(each)) == 3 for each in zip(*answers, strict=True))
    assert wherry("volume", "ls", "--quiet").lines == ["kept"]
    assert saved(own_world).stat().st_mode & 0o077 == 0


def test_the_clock_is_right_at_once(own_world: World) -> None:
    wherry = own_world.wherry
    start(wherry)
    stopped(wherry)
    # What was written down is by far older than the difference that is allowed below.
    time.sleep(max(0, saved(own_world).stat().st_mtime + 6 - time.time()))

    before = time.time()
    shown = float(wherry("machine", "ssh", "default", "date", "+%s", timeout=BOOT).stdout)

    assert not has_booted(wherry)
    assert before - 3 < shown < time.time() + 2


def test_another_machine_than_it_was_boots_and_is_saved_again(own_world: World) -> None:
    wherry = own_world.wherry
    start(wherry)
    wherry("machine", "set", "--memory", "1g", "--disk", "65g", check=False)
    start(stopped(wherry))
    was_another = has_booted(wherry)
    memory = wherry("machine", "ssh", "default", "cat", "/proc/meminfo").stdout
    start(stopped(wherry))

    assert was_another
    assert int(re.findall(r"MemTotal: +(\d+)", memory)[0]) < 1 << 20
    assert not has_booted(wherry)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def damage(path: Path) -> None:
    """Have it begin with something else, and look as it did."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"garbage" * 100)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("harm", [cut, damage, Path.unlink])
def test_a_damaged_one_is_of_no_use_and_in_nobodys_way(
    own_world: World, harm: Callable[[Path], None]
) -> None:
    wherry = own_world.wherry
    start(wherry)
    stopped(wherry)
    harm(saved(own_world))

    result = start(wherry)
    was_booted = has_booted(wherry)
    start(stopped(wherry))

    assert result.returncode == 0
    assert was_booted
    assert not has_booted(wherry)


def lose_a_page(path: Path) -> None:
    """What a power failure may do to a file, and nothing shows."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(4096))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("happens", [lambda path: None, lose_a_page])
def test_one_from_before_the_host_booted_is_read_through(
    own_world: World, happens: Callable[[Path], None]
) -> None:
    wherry = own_world.wherry
    start(wherry)
    stopped(wherry)
    record = saved(own_world).with_name("start.json")
    record.write_text(record.read_text().replace(boot_id(), "another boot of the host"))
    before = saved(own_world).read_bytes()
    happens(saved(own_world))
    is_whole = saved(own_world).read_bytes() == before

    start(wherry)

    assert has_booted(wherry) != is_whole
    assert boot_id() in record.read_text()


@pytest.fixture
def little_room(own_world: World) -> Iterator[Path]:
    """A machine's place that has room for all but what is saved of a start."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    place = saved(own_world).parent
    place.mkdir(mode=0o700, parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "none", place], check=True)
    yield place
    own_world.wherry("machine", "stop", "--force", check=False)
    subprocess.run(["umount", "--lazy", place], check=True)


def test_without_room_for_it_a_machine_boots_each_time(own_world: World, little_room: Path) -> None:
    wherry = own_world.wherry
    start(wherry)
    start(stopped(wherry))

    assert has_booted(wherry)
    assert inspect(wherry)["State"] == "running"
    assert not [each.name for each in little_room.iterdir() if each.name.startswith("start.")]
