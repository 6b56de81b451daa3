"""What a container has of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE

if TYPE_CHECKING:
    from support.cli import Cli
    from support.outside import Outside

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")


@pytest.mark.parametrize("name", NAMESPACES)
def test_container_has_a_namespace_of_its_own(
    wherry: Cli, outside: Outside, busybox_image: str, name: str
) -> None:
    hosts = outside("readlink", f"/proc/self/ns/{name}")
    if not hosts:
        pytest.skip(f"this kernel has no {name} namespaces")

    result = wherry("run", OFFLINE, "--rm", busybox_image, "readlink", f"/proc/self/ns/{name}")

    assert result.stdout.startswith(f"{name}:[")
    assert result.stdout != hosts


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--pid", "pid"),
        ("--ipc", "ipc"),
        ("--uts", "uts"),
        ("--network", "net"),
        ("--cgroupns", "cgroup"),
    ],
)
def test_container_shares_a_namespace_of_the_host_when_told_to(
    wherry: Cli, outside: Outside, busybox_image: str, flag: str, name: str
) -> None:
    network = () if name == "net" else (OFFLINE,)
    argv = (flag, "host", *network, busybox_image, "readlink", f"/proc/self/ns/{name}")

    result = wherry("run", "--rm", *argv)

    assert result.stdout == outside("readlink", f"/proc/self/ns/{name}")


def test_command_is_process_1_and_sees_no_others(wherry: Cli, busybox_image: str) -> None:
    result = wherry(
        "run", OFFLINE, "--rm", busybox_image, "sh", "-c", "echo $$; ls -d /proc/[0-9]*"
    )

    assert result.lines[0] == "1"
    assert set(result.lines[1:]) <= {"/proc/1", "/proc/2"}


def test_command_is_root_inside(wherry: Cli, busybox_image: str) -> None:
    assert wherry("run", OFFLINE, "--rm", busybox_image, "id", "-u").stdout == "0\n"


def test_hostname_is_the_short_id(wherry: Cli, busybox_image: str) -> None:
    container = wherry("create", OFFLINE, busybox_image, "hostname").stdout.strip()

    assert wherry("start", "-a", container).stdout.strip() == container[:12]


def test_hostname_can_be_chosen(wherry: Cli, busybox_image: str) -> None:
    script = "hostname; cat /etc/hostname"

    result = wherry("run", OFFLINE, "--rm", "--hostname", "box", busybox_image, "sh", "-c", script)

    assert result.lines == ["box", "box"]


def test_without_network_there_is_only_loopback(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", "--rm", "--network", "none", busybox_image, "ls", "/sys/class/net")

    assert "lo" in result.stdout.split()
    assert "eth0" not in result.stdout.split()


def test_host_is_out_of_reach(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    result = wherry("run", OFFLINE, "--rm", busybox_image, "ls", host_dir, check=False)

    assert result.returncode != 0


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/timer_list"])
def test_masked_file_is_empty(wherry: Cli, busybox_image: str, path: str) -> None:
    script = f"[ ! -e {path} ] || wc -c <{path}"

    assert wherry("run", OFFLINE, "--rm", busybox_image, "sh", "-c", script).stdout.strip() in (
        "",
        "0",
    )


def test_kernel_settings_are_read_only(wherry: Cli, busybox_image: str) -> None:
    script = "echo 0 >/proc/sys/kernel/core_uses_pid"

    assert (
        wherry("run", OFFLINE, "--rm", busybox_image, "sh", "-c", script, check=False).returncode
        != 0
    )


def test_device_files_are_the_harmless_ones(wherry: Cli, busybox_image: str) -> None:
    script = "echo x >/dev/null && head -c 4 /dev/zero | wc -c && [ ! -e /dev/mem ] && echo done"

    assert wherry("run", OFFLINE, "--rm", busybox_image, "sh", "-c", script).lines == ["4", "done"]


def test_boot_time_can_be_shifted(wherry: Cli, outside: Outside, busybox_image: str) -> None:
    argv = ("--clock-offset", "boottime=864000", busybox_image, "cut", "-d.", "-f1", "/proc/uptime")

    uptime = int(wherry("run", OFFLINE, "--rm", *argv).stdout)

    hosts = float(outside("cat", "/proc/uptime").split()[0])
    assert uptime - hosts == pytest.approx(864_000, abs=600)


def test_programs_find_in_mtab_what_is_mounted(wherry: Cli, busybox_image: str) -> None:
    script = "readlink /etc/mtab; grep -q ' /proc ' /etc/mtab && touch /own"
    wherry("run", OFFLINE, "--name", "box", busybox_image, "sh", "-c", script)

    assert wherry("logs", "box").lines == ["/proc/mounts"]
    assert wherry("diff", "box").lines == ["A /own"]
    wherry("run", OFFLINE, "--name", "first", busybox_image, "sh", "-c", "ln -sf own /etc/mtab")
    wherry("commit", "first", "made:1")
    kept = wherry("run", OFFLINE, "--rm", "--read-only", "made:1", "readlink", "/etc/mtab")
    assert kept.stdout == "own\n"


def test_program_can_tell_that_it_is_in_a_container(wherry: Cli, busybox_image: str) -> None:
    wherry("create", OFFLINE, "--name", "new", busybox_image)
    wherry("run", OFFLINE, "--name", "box", busybox_image, "sh", "-c", "test -f /.dockerenv")

    # It is no change of the container's, and does not come into images.
    assert wherry("diff", "new").stdout == ""
    assert wherry("diff", "box").stdout == ""
    wherry("commit", "box", "made:1")
    layers = "{{len .RootFS.Layers}}"
    before = wherry("image", "inspect", "-f", layers, busybox_image).stdout
    assert wherry("image", "inspect", "-f", layers, "made:1").stdout == before
