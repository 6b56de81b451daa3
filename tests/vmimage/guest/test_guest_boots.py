"""The guest itself: made out of what the mirror has, and booted under emulation."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from support.busybox import busybox_archive
from support.guest import RunningGuest, can_boot
from support.requirements import need_tool
from support.waiting import Deadline, wait_until
from wherry.image.progress import Progress
from wherry_vmimage.guest.build import GuestRequest, build_guest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.network, pytest.mark.vm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=["amd64", "arm64"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guest for each architecture that can be emulated here."""
    if not can_boot(request.param):
        pytest.skip(f"needs QEMU for {request.param} (see packages.txt)")
    directory = tmp_path_factory.mktemp(f"guest-{request.param}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHERRY_ROOT", str(tmp_path_factory.getbasetemp() / "packages"))
        build_guest(GuestRequest(architecture=request.param), str(directory), Progress())
        _lock_makes_it_again(directory, request.param)
    return directory


def _lock_makes_it_again(directory: Path, architecture: str) -> None:
    again = directory / "again"
    locked = GuestRequest(architecture=architecture, locked=str(directory / "packages.lock"))
    build_guest(locked, str(again), Progress())
    for name in ("kernel", "initramfs", "root.erofs", "manifest.json", "packages.lock"):
        assert (again / name).read_bytes() == (directory / name).read_bytes(), name


@pytest.fixture
def guest(image: Path, tmp_path: Path) -> Iterator[RunningGuest]:
    with RunningGuest(image, tmp_path / "data") as guest:
        yield guest


def test_root_is_sound_and_holds_no_key(image: Path, tmp_path: Path) -> None:
    program = need_tool("fsck.erofs")
    tree = tmp_path / "tree"

    subprocess.run(
        [program, "--no-preserve", f"--extract={tree}", str(image / "root.erofs")],
        check=True,
        capture_output=True,
    )

    assert not list(tree.glob("etc/ssh/*key*"))
    manifest = json.loads((image / "manifest.json").read_text())
    assert manifest["bytecode"] > 500
    assert {p["name"] for p in manifest["packages"]} > {"openssh-server", "nftables", "sshfs"}
    assert all(p["source"] and p["sha256"] for p in manifest["packages"])


def test_guest_boots_runs_containers_and_powers_off(guest: RunningGuest) -> None:
    print(f"ready after {guest.seconds:.1f} s")
    assert guest.ready["event"] == "ready"
    assert guest.ready["data"] == "mounted"

    version = guest("wherry version --format '{{.Server.Version}}'")
    assert version.output.strip() == guest.ready["version"], version.errors

    controllers = guest("cat /sys/fs/cgroup/cgroup.subtree_control").output.split()
    assert {"cpu", "io", "memory", "pids"} <= set(controllers)

    if guest("uname -m").output.strip() == "x86_64":
        loaded = guest("wherry load", input=busybox_archive())
    else:
        loaded = guest("tar -c -C / usr/bin/busybox | wherry import - busybox")
    assert loaded.code == 0, loaded.errors
    said = guest("wherry run --rm --memory 64m busybox /usr/bin/busybox echo hello")
    if said.code == 127:
        said = guest("wherry run --rm --memory 64m busybox /bin/busybox echo hello")
    assert (said.code, said.output) == (0, "hello\n"), said.errors

    guest.tell(op="poweroff")
    assert guest.wait_off() == 0


def test_host_sets_the_clock(guest: RunningGuest) -> None:
    seen = int(guest("date +%s").output)
    guest.tell(op="time", time=1_900_000_000, seen=seen)

    wait_until(
        lambda: 0 <= int(guest("date +%s").output) - 1_900_000_000 < 120, Deadline(60, "its clock")
    )


def test_images_are_still_there_in_the_next_guest(image: Path, tmp_path: Path) -> None:
    with RunningGuest(image, tmp_path / "data") as first:
        assert first("touch /var/lib/wherry/kept /etc/gone").code == 0
        first.tell(op="poweroff")
        first.wait_off()

    # A disk that has grown is used whole.
    with (tmp_path / "data").open("r+b") as file:
        file.truncate(16 << 30)

    with RunningGuest(image, tmp_path / "data") as second:
        assert second("test -e /var/lib/wherry/kept").code == 0
        assert second("test -e /etc/gone").code == 1
        size = second("df -k /data | tail -n 1 | awk '{print $2}'").output
        assert int(size) > 15 << 20


def test_disk_with_something_else_is_left_alone(image: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with data.open("wb") as file:
        file.write(b"somebody's")
        file.truncate(1 << 30)

    with RunningGuest(image, data) as guest:
        assert "holds something that is not ours" in guest.ready["data"]

    assert data.read_bytes()[:10] == b"somebody's"
