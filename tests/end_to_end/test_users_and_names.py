"""What a container knows of its user and of the host: passwd, groups, names of hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE, as_root, as_rootless

if TYPE_CHECKING:
    from support.cli import Cli
    from support.world import World


def test_user_that_the_image_does_not_know_can_have_a_name(wherry: Cli, busybox_image: str) -> None:
    options = (OFFLINE, "--rm", "--user", "4321:7", "--workdir", "/tmp")
    script = "id -un; echo $HOME; tail -n 1 /etc/passwd"

    named = wherry("run", *options, "--passwd", busybox_image, "sh", "-c", script)
    plain = wherry("run", *options, busybox_image, "sh", "-c", "id -u; echo $HOME")

    assert named.lines == ["4321", "/tmp", "4321:x:4321:7:container user:/tmp:/bin/sh"]
    assert plain.lines == ["4321", "/"]


def test_user_that_the_image_knows_keeps_its_line(wherry: Cli, busybox_image: str) -> None:
    wherry("run", OFFLINE, "--name", "box", "--passwd", busybox_image, "true")

    assert wherry("diff", "box").stdout == ""


def test_passwd_of_the_host_is_left_alone(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    with open(f"{host_dir}/passwd", "w") as file:
        file.write("root:x:0:0::/root:/bin/sh\n")

    wherry(
        "run", OFFLINE, "--rm", "--user", "4321", "--passwd",
        "-v", f"{host_dir}/passwd:/etc/passwd", busybox_image, "true",
    )  # fmt: skip

    with open(f"{host_dir}/passwd") as file:
        assert file.read() == "root:x:0:0::/root:/bin/sh\n"


@as_rootless
def test_user_that_is_kept_keeps_its_name(wherry: Cli, world: World, busybox_image: str) -> None:
    options = (OFFLINE, "--rm", "--userns", "keep-id")

    named = wherry("run", *options, busybox_image, "id", "-un")
    unnamed = wherry(
        "run", *options, "--passwd=false", busybox_image, "sh", "-c", "id -un || id -u"
    )

    assert named.stdout == f"{world.account.name}\n"
    assert str(world.account.uid) in unnamed.stdout


@as_root
def test_groups_of_the_caller_are_kept(wherry: Cli, busybox_image: str) -> None:
    """The test's user is root; setpriv puts it into a group."""
    command = [*wherry.account.command, "run", OFFLINE, "--rm", "--userns", "host"]
    show = [busybox_image, "sh", "-c", "grep Groups: /proc/self/status"]

    def groups(*options: str) -> str:
        process = wherry.spawn(["setpriv", "--groups", "4321", *command, *options, *show])
        return process.communicate(timeout=60)[0].decode().split(":")[1].strip()

    assert groups("--group-add", "keep-groups") == "4321"
    assert "4321" not in groups()


def test_gateway_is_the_loopback_on_the_hosts_network(wherry: Cli, busybox_image: str) -> None:
    options = ("--network", "host", "--rm", "--add-host", "up.test:host-gateway")

    result = wherry("run", *options, busybox_image, "grep", "up.test", "/etc/hosts")

    assert result.stdout == "127.0.0.1\tup.test\n"
    assert result.stderr == ""


def test_gateway_that_is_not_there_is_told(wherry: Cli, busybox_image: str) -> None:
    options = (OFFLINE, "--rm", "--add-host", "up.test:host-gateway")

    result = wherry("run", *options, busybox_image, "true")

    assert "WARNING: --add-host up.test:host-gateway is left out" in result.stderr


def test_link_is_told_to_lead_nowhere(wherry: Cli, busybox_image: str) -> None:
    wherry("create", OFFLINE, "--name", "db", busybox_image, "true")

    linked = wherry("run", OFFLINE, "--rm", "--link", "db", busybox_image, "true")
    missing = wherry("run", OFFLINE, "--rm", "--link", "no", busybox_image, "true", check=False)

    assert "WARNING: --link db:db is left out" in linked.stderr
    assert missing.returncode == 125
    assert "could not get container for no: No such container: no" in missing.stderr


@pytest.mark.parametrize("name", ["runc", "crun"])
def test_names_of_usual_runtimes_stand_for_ours(wherry: Cli, busybox_image: str, name: str) -> None:
    wherry("run", OFFLINE, "--rm", "--runtime", name, busybox_image, "true")


def test_runtime_that_is_not_there_is_refused(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", OFFLINE, "--rm", "--runtime", "runsc", busybox_image, check=False)

    assert result.returncode == 125
    assert "Unknown runtime specified runsc" in result.stderr
