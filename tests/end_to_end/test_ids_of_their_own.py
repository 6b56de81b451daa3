"""`--userns auto`: ids that no other container has, and files that keep their owners."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE, as_root
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.cli import Cli
    from support.world import World

AUTO = (OFFLINE, "--userns", "auto")


def _maps(world: World) -> list[list[tuple[int, int]]]:
    """The (first, how many) ids of the host that each container has."""
    found = Path(world.root, "data/containers").glob("*/ids.json")
    return [
        [(entry["hostID"], entry["size"]) for entry in json.loads(path.read_text())["uid"]]
        for path in found
    ]


def _is_disjoint(ranges: list[tuple[int, int]]) -> bool:
    ordered = sorted(ranges)
    return all(
        first + count <= following for (first, count), (following, _) in itertools.pairwise(ordered)
    )


@as_root
def test_root_of_the_container_is_nobody_on_the_host(
    wherry: Cli, busybox_image: str, world: World
) -> None:
    wherry("run", "-d", "--name", "box", *AUTO, busybox_image, "sleep", "1000")

    pid = int(wherry("inspect", "-f", "{{.State.Pid}}", "box").stdout)
    owner = Path(f"/proc/{pid}").stat().st_uid
    inside, outside, size = Path(f"/proc/{pid}/uid_map").read_text().split()

    assert (inside, int(outside), size) == ("0", owner, "65536")
    assert owner >= 0x78000000
    assert _maps(world) == [[(owner, 65536)]]
    assert wherry("inspect", "-f", "{{.HostConfig.UsernsMode}}", "box").stdout == "auto\n"


@as_root
def test_images_volumes_and_binds_keep_their_owners(
    wherry: Cli, busybox_image: str, host_dir: str
) -> None:
    Path(host_dir, "file").write_text("of the host")
    os.chown(Path(host_dir, "file"), 1000, 1001)
    os.chown(host_dir, 0, 0)
    script = (
        "stat -c %u:%g /bin /host /host/file /etc/hosts /etc; touch /host/new /volume/new /new;"
        " chown 5:6 /volume/new; echo to stderr by name >/dev/stderr"
    )

    mounts = ("-v", f"{host_dir}:/host", "-v", "kept:/volume")
    result = wherry("run", "--rm", *AUTO, *mounts, busybox_image, "sh", "-c", script)

    assert result.stdout.split() == ["0:0", "0:0", "1000:1001", "0:0", "0:0"]
    assert result.stderr == "to stderr by name\n"
    assert Path(host_dir, "new").stat().st_uid == 0
    again = ("run", "--rm", *AUTO, "-v", "kept:/volume", busybox_image)
    other = wherry(*again, "stat", "-c", "%u:%g", "/volume/new")
    assert other.stdout == "5:6\n"


@as_root
@pytest.mark.parametrize("options", [["--rootfs"], []], ids=["rootfs", "image"])
def test_files_keep_their_owners_through_every_command(
    wherry: Cli, busybox_image: str, host_dir: str, world: World, options: list[str]
) -> None:
    source = busybox_image
    if options:
        exported = wherry("export", wherry("create", busybox_image).stdout.strip()).output
        Path(host_dir, "rootfs").mkdir()
        subprocess.run(["tar", "-x", "-C", f"{host_dir}/rootfs"], input=exported, check=True)
        source = f"{host_dir}/rootfs"
    Path(host_dir, "in").write_text("in")
    os.chown(Path(host_dir, "in"), 7, 8)
    script = "touch /made /mine; chown 5:6 /made; exec sleep 1000"
    wherry("run", "-d", "--name", "box", *AUTO, *options, source, "sh", "-c", script)
    _wait_for(wherry, "test -O /mine")
    wherry("cp", "-a", f"{host_dir}/in", "box:/first")
    wherry("stop", "-t", "0", "box")

    wherry("cp", "-a", f"{host_dir}/in", "box:/second")

    expected = {"made": (5, 6), "mine": (0, 0), "first": (7, 8), "second": (7, 8)}
    for name, owner in expected.items():
        with tarfile.open(fileobj=io.BytesIO(wherry("cp", f"box:/{name}", "-").output)) as archive:
            assert (archive.getmember(name).uid, archive.getmember(name).gid) == owner
    with tarfile.open(fileobj=io.BytesIO(wherry("export", "box").output)) as archive:
        found = {member.name.removeprefix("./"): (member.uid, member.gid) for member in archive}
    assert found.items() >= expected.items()
    assert found["bin"] == (0, 0)
    if not options:
        changed = set(wherry("diff", "box").stdout.splitlines())
        assert changed >= {f"A /{name}" for name in expected}
        assert not {line for line in changed if "/bin" in line}
        wherry("commit", "box", "committed")
        listing = wherry(
            "run", "--rm", OFFLINE, "committed", "stat", "-c", "%u:%g", "/made", "/mine", "/first"
        )
        assert listing.stdout.split() == ["5:6", "0:0", "7:8"]
    wherry("start", "box")
    assert wherry("exec", "box", "stat", "-c", "%u:%g", "/second").stdout == "7:8\n"


def _wait_for(wherry: Cli, condition: str) -> None:
    wait_until(
        lambda: wherry("exec", "box", "sh", "-c", condition, check=False).returncode == 0,
        Deadline(60, f"{condition!r} in the container"),
    )


@as_root
def test_containers_made_at_once_share_no_id(wherry: Cli, busybox_image: str, world: World) -> None:
    makers = [
        wherry.start("create", *AUTO, busybox_image, "true", stdout=subprocess.DEVNULL)
        for _ in range(10)
    ]
    assert [maker.wait(60) for maker in makers] == [0] * 10

    maps = _maps(world)

    assert len(maps) == 10
    assert _is_disjoint([one for ranges in maps for one in ranges])


@as_root
def test_range_is_given_back_with_its_container_alone(
    wherry: Cli, busybox_image: str, world: World
) -> None:
    for name in ("first", "second"):
        wherry("run", "--name", name, *AUTO, busybox_image, "true")
    (taken,) = [one for one in _maps(world) if min(one)[0] == 0x78000000]
    wherry("rm", "second")
    wherry("create", "--name", "third", *AUTO, busybox_image, "true")
    assert len({str(one) for one in _maps(world)}) == 2

    wherry("rm", "first")
    wherry("create", "--name", "fourth", *AUTO, busybox_image, "true")

    assert taken in _maps(world)
    assert _is_disjoint([one for ranges in _maps(world) for one in ranges])


@as_root
def test_range_of_a_command_that_was_killed_is_free_again(
    wherry: Cli, busybox_image: str, world: World, host_dir: str
) -> None:
    Path(host_dir, "name").mkdir()
    # It waits where it fills the volume, after it has taken its range.
    volume = wherry("volume", "create", "held").stdout.strip()
    lock = os.open(f"{world.root}/data/volumes/{volume}", os.O_RDONLY)
    import fcntl

    fcntl.flock(lock, fcntl.LOCK_EX)
    maker = wherry.start("create", *AUTO, "-v", "held:/bin", busybox_image, "true")
    wait_until(lambda: len(_maps(world)) == 1, Deadline(60, "the range to be taken"))

    os.kill(maker.pid, signal.SIGKILL)
    maker.wait()
    os.close(lock)

    def is_free() -> bool:
        wherry("container", "prune", "-f")
        return _maps(world) == []

    # A process of its own may end a moment later.
    wait_until(is_free, Deadline(60, "the range to be free"))


@as_root
def test_size_and_mappings_are_what_was_asked(
    wherry: Cli, busybox_image: str, world: World, host_dir: str
) -> None:
    os.chown(host_dir, 0, 0)
    mode = "auto:size=2000,uidmapping=1500:4321:1,gidmapping=10:4322:2"

    result = wherry(
        "run",
        "--rm",
        OFFLINE,
        "--userns",
        mode,
        busybox_image,
        "cat",
        "/proc/self/uid_map",
        "/proc/self/gid_map",
    )

    rows = [tuple(map(int, line.split())) for line in result.stdout.splitlines()]
    first = rows[0][1]
    assert rows == [
        (0, first, 1500),
        (1500, 4321, 1),
        (1501, first + 1501, 499),
        (0, rows[3][1], 10),
        (10, 4322, 2),
        (12, rows[3][1] + 12, 1988),
    ]


@as_root
def test_privileged_container_has_power_over_its_own_ids_alone(
    wherry: Cli, busybox_image: str, host_dir: str
) -> None:
    Path(host_dir, "secret").write_text("x")
    os.chmod(Path(host_dir, "secret"), 0o600)
    script = (
        "cat /proc/self/uid_map; mount -t tmpfs t /tmp && echo mounted;"
        " mount -o remount,bind,dev,suid /; mknod /tmp/disk b 8 0; cat /dev/mem | head -c 1"
    )

    result = wherry(
        "run", "--rm", *AUTO, "--privileged", busybox_image, "sh", "-c", script, check=False
    )

    assert "mounted" in result.stdout
    assert result.stdout.split()[1] != "0"
    assert "mknod: /tmp/disk: Operation not permitted" in result.stderr


@as_root
def test_container_that_joins_sees_the_same_owners(wherry: Cli, busybox_image: str) -> None:
    wherry("run", "-d", "--name", "box", *AUTO, busybox_image, "sleep", "1000")

    script = "cat /proc/self/uid_map; touch /made; stat -c %u:%g /made /bin; echo >/dev/stderr"
    joins = ("run", "--rm", OFFLINE, "--userns", "container:box", busybox_image)
    result = wherry(*joins, "sh", "-c", script)

    assert result.stdout.splitlines()[1:] == ["0:0", "0:0"]
    assert (
        result.stdout.split()[:3]
        == wherry("exec", "box", "cat", "/proc/self/uid_map").stdout.split()
    )


@as_root
def test_container_that_joins_has_clocks_of_its_own(wherry: Cli, busybox_image: str) -> None:
    wherry("run", "-d", "--name", "box", *AUTO, busybox_image, "sleep", "1000")
    moved = ("--userns", "container:box", OFFLINE, "--clock-offset", "boottime=864000")

    result = wherry("run", "--rm", *moved, busybox_image, "cut", "-d.", "-f1", "/proc/uptime")

    assert int(result.stdout) > 864000


@as_root
@pytest.mark.parametrize("user", ["0", "5"])
def test_pipe_of_exec_can_be_opened_by_name(wherry: Cli, busybox_image: str, user: str) -> None:
    wherry("run", "-d", "--name", "box", *AUTO, busybox_image, "sleep", "1000")
    script = "cat /dev/stdin; echo out >/dev/stdout; echo err >/dev/stderr"

    result = wherry("exec", "-i", "-u", user, "box", "sh", "-c", script, input="in\n")

    assert (result.stdout, result.stderr) == ("in\nout\n", "err\n")


@as_root
def test_u_gives_files_to_the_user_of_the_container(
    wherry: Cli, busybox_image: str, host_dir: str
) -> None:
    place = Path(host_dir, "given")
    place.mkdir()

    result = wherry(
        "run",
        "--rm",
        *AUTO,
        "-u",
        "3:4",
        "-v",
        f"{place}:/x:U",
        busybox_image,
        "sh",
        "-c",
        "touch /x/f; stat -c %u:%g /x /x/f",
    )

    assert result.stdout.split() == ["3:4", "3:4"]
    assert ((place / "f").stat().st_uid, (place / "f").stat().st_gid) == (3, 4)


@as_root
def test_overlays_images_and_parts_of_volumes_keep_their_owners(
    wherry: Cli, busybox_image: str, host_dir: str
) -> None:
    Path(host_dir, "file").write_text("of the host")
    os.chown(host_dir, 0, 0)
    os.chown(Path(host_dir, "file"), 9, 9)
    make = ("sh", "-c", "mkdir /v/part; chown 4:4 /v/part")
    wherry("run", "--rm", OFFLINE, "-v", "kept:/v", busybox_image, *make)
    mounts = (
        "-v", f"{host_dir}:/over:O",
        "--mount", f"type=image,source={busybox_image},target=/image",
        "--mount", f"type=image,source={busybox_image},target=/programs,image-subpath=bin",
        "--mount", "type=volume,source=kept,target=/part,volume-subpath=part",
    )  # fmt: skip

    script = (
        "echo >>/over/file; touch /image/new;"
        " stat -c %u:%g /over/file /image/bin /image/new /programs/sh /part"
    )
    result = wherry("run", "--rm", *AUTO, *mounts, busybox_image, "sh", "-c", script)

    assert result.stdout.split() == ["9:9", "0:0", "0:0", "0:0", "4:4"]
    assert Path(host_dir, "file").read_text() == "of the host"


@as_root
def test_explanation_tells_the_maps_and_what_is_idmapped(wherry: Cli, busybox_image: str) -> None:
    text = wherry("run", "--rm", *AUTO, "--explain", "-v", "kept:/v", busybox_image, "true").stderr

    assert "uid  0-65535  ->  20132" in text
    (volume,) = [line for line in text.splitlines() if line.startswith("  /v ")]
    assert volume.endswith(",idmap")
    assert "by idmapped mounts its files keep their owners" in text


# ---- -v …:idmap ----


@as_root
@pytest.mark.parametrize(
    ("userns", "idmap", "owner"),
    [
        ("private", "idmap=uids=1000-0-1;gids=1000-0-1", "0:0"),
        ("private", "idmap=uids=1000-0-1", "0:1000"),
        ("private", "idmap", "1000:1000"),
        ("host", "idmap=uids=1000-7-1;gids=1000-8-1", "7:8"),
        ("auto", "idmap=uids=@1000-3-1;gids=@1000-4-1", "3:4"),
        ("auto", "idmap", "1000:1000"),
    ],
)
def test_idmap_of_a_volume_is_what_the_container_sees(
    wherry: Cli, busybox_image: str, host_dir: str, userns: str, idmap: str, owner: str
) -> None:
    Path(host_dir, "file").write_text("x")
    os.chown(Path(host_dir, "file"), 1000, 1000)
    bind = f"{host_dir}/file:/file:{idmap}"
    made = ("--name", "box", OFFLINE, "--userns", userns, "-v", bind, busybox_image)

    result = wherry("run", *made, "stat", "-c", "%u:%g", "/file")

    assert result.stdout == f"{owner}\n"
    with tarfile.open(fileobj=io.BytesIO(wherry("cp", "box:/file", "-").output)) as archive:
        found = archive.getmember("file")
    assert f"{found.uid}:{found.gid}" == owner


def test_what_idmap_cannot_do_is_one_clear_line(
    wherry: Cli, busybox_image: str, host_dir: str
) -> None:
    arguments = ("run", "--rm", OFFLINE, "--userns", "host", "-v", f"{host_dir}:/x:idmap")
    result = wherry(*arguments, busybox_image, "true", check=False)

    assert result.returncode == 125
    assert result.stderr.startswith("wherry: cannot idmap ")
    reasons = ("the container has no user namespace", "the kernel lets only the host's root")
    assert any(reason in result.stderr for reason in reasons)
    assert wherry("ps", "-aq").stdout == ""


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("auto:size=x", 'invalid --userns "auto:size=x"'),
        ("auto:sise=1", 'invalid --userns "auto:sise=1"'),
        ("auto:uidmapping=1", 'invalid --userns "auto:uidmapping=1"'),
        ("auto:uidmapping=0:1:5,uidmapping=4:9:1", "two mappings overlap"),
        ("keep-id:uid=x", 'invalid --userns "keep-id:uid=x"'),
        ("container:", "--userns: invalid USER mode"),
        ("container:nobody", "No such container: nobody"),
    ],
)
def test_userns_that_makes_no_sense_is_one_clear_line(
    wherry: Cli, busybox_image: str, mode: str, reason: str
) -> None:
    result = wherry("run", "--rm", OFFLINE, "--userns", mode, busybox_image, "true", check=False)

    assert result.returncode == 125
    assert reason in result.stderr.splitlines()[0]
    assert wherry("ps", "-aq").stdout == ""


@as_root
def test_more_ids_than_there_are_is_one_clear_line(wherry: Cli, busybox_image: str) -> None:
    mode = "auto:size=4294967294"

    result = wherry("run", "--rm", OFFLINE, "--userns", mode, busybox_image, "true", check=False)

    assert result.returncode == 125
    assert "there is no range of 4294967294 uids left" in result.stderr
    assert wherry("ps", "-aq").stdout == ""
