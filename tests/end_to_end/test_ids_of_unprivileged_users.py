"""Ids of containers without root: `--userns keep-id`, `nomap` and `auto`."""

from __future__ import annotations

import io
import os
import struct
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.layers import entry, layer
from support.requirements import need_tool
from support.settings import OFFLINE, as_rootless, as_single_uid
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.cli import Cli

MODES = ("keep-id", "keep-id:uid=5,gid=6", "nomap", "auto")
each_mode = pytest.mark.parametrize("mode", MODES)


def _wait_for(wherry: Cli, condition: str) -> None:
    wait_until(
        lambda: (
            wherry("exec", "-u", "0", "box", "sh", "-c", condition, check=False).returncode == 0
        ),
        Deadline(60, f"{condition!r} in the container"),
    )


@as_rootless
@each_mode
def test_files_of_the_image_belong_to_the_containers_root(
    wherry: Cli, busybox_image: str, mode: str
) -> None:
    script = "stat -c %u:%g / /bin /bin/sh /root; touch /made && stat -c %u:%g /made"

    userns = ("--userns", mode, "-u", "0")
    result = wherry("run", "--rm", OFFLINE, *userns, busybox_image, "sh", "-c", script)

    assert result.stdout.split() == ["0:0"] * 5


@as_rootless
@each_mode
def test_files_keep_their_owners_through_every_command(
    wherry: Cli, busybox_image: str, host_dir: str, mode: str
) -> None:
    Path(host_dir, "in").write_text("in")
    account = wherry.account
    os.chown(Path(host_dir, "in"), account.uid, account.gid)
    script = "touch /made /mine; chown 50:60 /made; rm /bin/true; touch /ready; exec sleep 1000"
    made = ("-d", "--name", "box", OFFLINE, "--userns", mode, "-u", "0", busybox_image)
    wherry("run", *made, "sh", "-c", script)
    _wait_for(wherry, "test -f /ready")
    wherry("cp", f"{host_dir}/in", "box:/first")
    wherry("stop", "-t", "0", "box")

    wherry("cp", f"{host_dir}/in", "box:/second")

    expected = {"made": (50, 60), "mine": (0, 0), "first": (0, 0), "second": (0, 0)}
    for name, owner in expected.items():
        content = wherry("cp", f"box:/{name}", "-").output
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            assert (archive.getmember(name).uid, archive.getmember(name).gid) == owner
    with tarfile.open(fileobj=io.BytesIO(wherry("export", "box").output)) as archive:
        found = {member.name.removeprefix("./"): (member.uid, member.gid) for member in archive}
    assert found.items() >= {**expected, "bin": (0, 0), "bin/sh": (0, 0)}.items()
    assert "bin/true" not in found
    changed = wherry("diff", "box").stdout.splitlines()
    assert set(changed) >= {"D /bin/true", *(f"A /{name}" for name in expected)}
    assert "C /root" not in changed
    wherry("commit", "box", "committed")
    shown = ("stat", "-c", "%u:%g", "/made", "/mine", "/first", "/bin")
    listing = wherry("run", "--rm", OFFLINE, "committed", *shown)
    assert listing.stdout.split() == ["50:60", "0:0", "0:0", "0:0"]
    wherry("start", "box")
    assert wherry("exec", "-u", "0", "box", "stat", "-c", "%u:%g", "/second").stdout == "0:0\n"


@as_rootless
@pytest.mark.parametrize("mode", ["keep-id", "nomap", "auto"])
def test_callers_files_are_the_callers_or_nobodys(
    wherry: Cli, busybox_image: str, host_dir: str, mode: str
) -> None:
    account = wherry.account
    Path(host_dir, "file").write_text("mine")
    Path(host_dir, "file").chmod(0o644)
    os.chown(Path(host_dir, "file"), account.uid, account.gid)
    os.chmod(host_dir, 0o755)
    script = "id -u; stat -c %u:%g /x/file; cat /x/file; echo >/x/new"

    bind = (OFFLINE, "--userns", mode, "-v", f"{host_dir}:/x")
    result = wherry("run", "--rm", *bind, busybox_image, "sh", "-c", script, check=False)

    if mode == "keep-id":
        assert result.stdout.split() == [str(account.uid), f"{account.uid}:{account.gid}", "mine"]
        assert Path(host_dir, "new").stat().st_uid == account.uid
    else:
        assert result.stdout.split() == ["0", "65534:65534", "mine"]
        assert not Path(host_dir, "new").exists()


@as_rootless
@each_mode
def test_volumes_are_filled_with_the_images_owners(
    wherry: Cli, busybox_image: str, mode: str
) -> None:
    userns = (OFFLINE, "--userns", mode, "-u", "0", "-v", "kept:/bin")

    result = wherry("run", "--rm", *userns, busybox_image, "stat", "-c", "%u:%g", "/bin", "/bin/sh")

    assert result.stdout.split() == ["0:0", "0:0"]


@as_rootless
@each_mode
def test_u_gives_files_to_the_user_of_the_container(
    wherry: Cli, busybox_image: str, mode: str
) -> None:
    wherry("volume", "create", "given")
    userns = (OFFLINE, "--userns", mode, "-u", "3:4", "-v", "given:/x:U")

    script = "touch /x/f; stat -c %u:%g /x /x/f"
    result = wherry("run", "--rm", *userns, busybox_image, "sh", "-c", script)

    assert result.stdout.split() == ["3:4", "3:4"]


@as_rootless
@pytest.mark.parametrize("mode", ["", *MODES])
def test_secrets_belong_to_the_user_of_the_container(
    wherry: Cli, busybox_image: str, host_dir: str, mode: str
) -> None:
    Path(host_dir, "key").write_text("secret")
    Path(host_dir, "key").chmod(0o644)
    wherry("secret", "create", "key", f"{host_dir}/key")
    secrets = ("--secret", "key,uid=3,gid=4,mode=0400", "--secret", "key,target=roots")
    script = "stat -c %u:%g:%a /run/secrets/key /run/secrets/roots; cat /run/secrets/key"

    userns = (OFFLINE, "--userns", mode, "-u", "3", *secrets)
    result = wherry("run", "--rm", *userns, busybox_image, "sh", "-c", script)

    assert result.stdout.split() == ["3:4:400", "0:0:444", "secret"]


def _import_capable_tool(wherry: Cli) -> None:
    """The image `tools`, whose /tool/busybox may open raw sockets, whoever runs it."""
    # capabilities(7), version 2: effective, permitted is CAP_NET_RAW.
    capability = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0).decode("latin-1")
    program = Path(need_tool("busybox")).read_bytes()
    tool = entry("tool/busybox", program, pax={"SCHILY.xattr.security.capability": capability})
    wherry("import", "-", "tools", input=layer(tool))


@as_rootless
@pytest.mark.parametrize("mode", ["", *MODES])
def test_capabilities_of_files_count_for_other_ids_as_well(wherry: Cli, mode: str) -> None:
    _import_capable_tool(wherry)
    show = ("/tool/busybox", "grep", "CapEff", "/proc/self/status")
    user = (OFFLINE, "--userns", mode, "-u", "7")

    wherry("run", "--name", "box", *user, "tools", *show)

    shown = f"CapEff:\t{1 << 13:016x}\n"
    assert wherry("logs", "box").stdout == shown
    wherry("commit", "box", "again")
    assert wherry("run", "--rm", OFFLINE, "-u", "7", "again", *show).stdout == shown


@as_rootless
def test_caller_does_not_exist_with_nomap(wherry: Cli, busybox_image: str) -> None:
    nomap = ("--name", "box", OFFLINE, "--userns", "nomap")
    wherry("run", "-d", *nomap, busybox_image, "sleep", "1000")

    inside, outside, size = _map_of(wherry, "box")

    assert (inside, size) == (0, 65536)
    assert not outside <= wherry.account.uid < outside + size


@as_rootless
@each_mode
@pytest.mark.parametrize("user", ["", "0", "5"])
def test_pipe_can_be_opened_by_name(wherry: Cli, busybox_image: str, mode: str, user: str) -> None:
    script = "echo out >/dev/stdout; echo err >/dev/stderr"
    userns = (OFFLINE, "--userns", mode, "--user", user)

    result = wherry("run", "--rm", *userns, busybox_image, "sh", "-c", script)

    assert (result.stdout, result.stderr) == ("out\n", "err\n")


@as_rootless
@pytest.mark.parametrize("user", ["0", "5"])
@pytest.mark.parametrize("mode", ["", *MODES])
def test_pipe_of_exec_can_be_opened_by_name(
    wherry: Cli, busybox_image: str, mode: str, user: str
) -> None:
    wherry("run", "-d", "--name", "box", OFFLINE, "--userns", mode, busybox_image, "sleep", "1000")
    script = "cat /dev/stdin; echo out >/dev/stdout; echo err >/dev/stderr"

    result = wherry("exec", "-i", "-u", user, "box", "sh", "-c", script, input="in\n")

    assert (result.stdout, result.stderr) == ("in\nout\n", "err\n")


@as_rootless
@each_mode
def test_what_else_a_container_has_works_with_other_ids(
    wherry: Cli, busybox_image: str, mode: str
) -> None:
    """Joined and read-only ones, overlays, images, secrets, clocks, sysctls, privileges."""
    mounts = ("--mount", f"type=image,source={busybox_image},target=/image", "--tmpfs", "/t")
    settings = ("--sysctl", "net.ipv4.ping_group_range=0 5", "--clock-offset", "boottime=1000")
    made = (OFFLINE, "--userns", mode, "-u", "0", *mounts, *settings)
    wherry("run", "-d", "--name", "box", *made, busybox_image, "sleep", "1000")

    owners = wherry("exec", "-u", "0", "box", "stat", "-c", "%u:%g", "/image/bin", "/t", "/proc/1")
    assert owners.stdout.split() == ["0:0"] * 3
    reads = (OFFLINE, "--userns", mode, "-u", "0", "--read-only")
    refused = wherry("run", "--rm", *reads, busybox_image, "touch", "/x", check=False)
    assert "Read-only file system" in refused.stderr
    has_power = (OFFLINE, "--userns", mode, "-u", "0", "--privileged")
    wherry("run", "--rm", *has_power, busybox_image, "mount", "-t", "tmpfs", "t", "/tmp")


@as_rootless
def test_containers_of_a_user_have_parts_of_the_users_ids(wherry: Cli, busybox_image: str) -> None:
    auto = (OFFLINE, "--userns", "auto")
    for name in ("first", "second"):
        wherry("run", "-d", "--name", name, *auto, busybox_image, "sleep", "1000")

    maps = [_map_of(wherry, name) for name in ("first", "second")]

    (first, count), (second, other) = sorted((outside, size) for _, outside, size in maps)
    assert first + count <= second
    assert count == other == 2048
    wherry("rm", "-f", "first", "second")


def _map_of(wherry: Cli, name: str) -> list[int]:
    pid = int(wherry("inspect", "-f", "{{.State.Pid}}", name).stdout)
    return list(map(int, Path(f"/proc/{pid}/uid_map").read_text().split()))


@as_rootless
def test_layers_are_copied_once_for_the_same_ids(
    wherry: Cli, busybox_image: str, wherry_root: str
) -> None:
    for _ in range(2):
        wherry("run", "--rm", OFFLINE, "--userns", "keep-id", busybox_image, "true")
    wherry("run", "--rm", OFFLINE, "--userns", "auto", busybox_image, "true")

    copies = list(Path(wherry_root, "data/layers/sha256").glob("*/ids-*"))

    assert len(copies) == 1
    wherry("rmi", busybox_image)
    assert list(Path(wherry_root, "data/layers/sha256").glob("*")) == []


@as_single_uid
@pytest.mark.parametrize("mode", ["nomap", "auto"])
def test_user_without_subordinate_ids_is_told_so(
    wherry: Cli, busybox_image: str, mode: str
) -> None:
    result = wherry("run", OFFLINE, "--userns", mode, busybox_image, "true", check=False)

    assert result.returncode == 125
    assert f"--userns {mode} needs subordinate ids, and this user has none" in result.stderr
    assert wherry("ps", "-aq").stdout == ""


@as_rootless
@pytest.mark.parametrize("mode", ["keep-id", "nomap", "auto"])
@pytest.mark.parametrize("joined", ["--userns", "--network", "--pid", "--ipc"])
def test_who_joins_a_container_has_its_ids(
    wherry: Cli, busybox_image: str, host_dir: str, mode: str, joined: str
) -> None:
    made = (OFFLINE, "--ipc", "shareable", "--userns", mode, "-u", "0", "--name", "box")
    wherry("run", "-d", *made, busybox_image, "sleep", "1000")
    kind = {"--userns": "user", "--network": "net"}.get(joined, joined.strip("-"))
    links = f"readlink /proc/self/ns/user; readlink /proc/self/ns/{kind}"
    script = (
        f"{links}; touch /made /v/made; stat -c %u:%g /bin /bin/sh /x /v /made /v/made;"
        " echo by name >/dev/stderr"
    )
    options = (joined, "container:box", "-u", "0", "-v", f"{host_dir}:/x", "-v", "data:/v:U")
    offline = () if joined == "--network" else (OFFLINE,)
    wherry("create", *offline, *options, "--name", "guest", busybox_image, "sh", "-c", script)

    result = wherry("start", "-a", "guest")

    account = wherry.account
    theirs = f"{account.uid}:{account.gid}" if mode == "keep-id" else "65534:65534"
    assert result.lines[:2] == wherry("exec", "box", "sh", "-c", links).lines
    assert result.lines[2:] == ["0:0", "0:0", theirs, "0:0", "0:0", "0:0"]
    assert result.stderr == "by name\n"
    wherry("rm", "-f", "guest", "box")
    assert wherry("system", "check").lines == []


@as_rootless
def test_files_of_who_joined_are_not_given_to_other_ids(wherry: Cli, busybox_image: str) -> None:
    def make(mode: str) -> None:
        made = ("--name", "box", OFFLINE, "--userns", mode, busybox_image, "sleep", "1000")
        wherry("run", "-d", *made)

    make("auto")
    joins = ("--userns", "container:box", OFFLINE, "--name", "guest", busybox_image, "true")
    wherry("create", *joins)
    wherry("rm", "-f", "box")
    make("nomap")

    refused = wherry("start", "guest", check=False)

    assert refused.returncode == 1
    assert "it was made with other ids than those of container box" in refused.stderr


@as_rootless
@pytest.mark.parametrize("mode", ["", "keep-id", "nomap", "auto"])
def test_who_joins_a_container_has_clocks_of_its_own(
    wherry: Cli, busybox_image: str, mode: str
) -> None:
    wherry("run", "-d", OFFLINE, "--userns", mode, "--name", "box", busybox_image, "sleep", "1000")
    moved = ("--userns", "container:box", OFFLINE, "--clock-offset", "boottime=864000")

    result = wherry("run", "--rm", *moved, busybox_image, "cut", "-d.", "-f1", "/proc/uptime")

    assert int(result.stdout) > 864000
