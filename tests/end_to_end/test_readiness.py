"""When a container is ready: startup checks, and telling NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from support.requirements import need_tool
from support.settings import OFFLINE, on_linux
from support.waiting import Deadline, wait_readable, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.cli import Cli
    from support.world import World


def _wait_for_health(wherry: Cli, wanted: str) -> None:
    def is_so() -> bool:
        return wherry("inspect", "-f", "{{.State.Health.Status}}", "box").stdout == f"{wanted}\n"

    wait_until(is_so, Deadline(60, f"the container to be {wanted}"))


def test_health_check_begins_after_the_startup_check(wherry: Cli, busybox_image: str) -> None:
    wherry(
        "run", OFFLINE, "-d", "--name", "box", "--health-cmd", "test -e /well",
        "--health-interval", "100ms", "--health-retries", "1",
        "--health-startup-cmd", "test -e /up", "--health-startup-interval", "100ms",
        busybox_image, "sleep", "1000",
    )  # fmt: skip
    failed = wherry("healthcheck", "run", "box", check=False)
    starting = wherry("inspect", "-f", "{{.State.Health.Status}}", "box").stdout

    wherry("exec", "box", "touch", "/up")
    _wait_for_health(wherry, "unhealthy")
    wherry("exec", "box", "touch", "/well")
    _wait_for_health(wherry, "healthy")

    assert failed.returncode == 1
    assert starting == "starting\n"


def test_container_that_does_not_come_up_is_restarted(wherry: Cli, busybox_image: str) -> None:
    wherry(
        "run", OFFLINE, "-d", "--name", "box", "--health-cmd", "true",
        "--health-startup-cmd", "test -e /up", "--health-startup-interval", "50ms",
        "--health-startup-retries", "2",
        busybox_image, "sh", "-c", "test -e /began && touch /up; touch /began; exec sleep 1000",
    )  # fmt: skip

    def is_up() -> bool:
        return wherry("exec", "box", "test", "-e", "/up", check=False).returncode == 0

    # On a busy machine it may be ended before it has said that it began, and come once more.
    wait_until(is_up, Deadline(60, "the container to be restarted, and up"))
    assert int(wherry("inspect", "-f", "{{.RestartCount}}", "box").stdout) >= 1


def test_startup_check_needs_a_health_check(wherry: Cli, busybox_image: str) -> None:
    refuses_without_a_health_check(wherry, busybox_image, "--health-startup-cmd=true")


@on_linux  # a machine has no way to NOTIFY_SOCKET
def test_readiness_by_health_needs_a_health_check(wherry: Cli, busybox_image: str) -> None:
    refuses_without_a_health_check(wherry, busybox_image, "--sdnotify=healthy")


def refuses_without_a_health_check(wherry: Cli, image: str, option: str) -> None:
    result = wherry("run", OFFLINE, option, image, "true", check=False)

    assert result.returncode == 125
    assert "health check" in result.stderr
    assert "--health-cmd" in result.stderr
    assert wherry("ps", "-aq").stdout == ""


class _Listener:
    """systemd's end of NOTIFY_SOCKET."""

    def __init__(self, path: str, owner: int) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        if os.geteuid() == 0:
            os.chown(path, owner, -1)

    def next(self) -> dict[str, str]:
        """What is said next."""
        wait_readable(self._socket.fileno(), Deadline(60, "a notification"))
        lines = self._socket.recv(1 << 16).decode().splitlines()
        return {name: content for name, _, content in (line.partition("=") for line in lines)}

    def is_silent(self) -> bool:
        """Whether nothing has been said that was not read."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(1 << 16)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(world: World) -> Iterator[_Listener]:
    """A socket that hears; its path is NOTIFY_SOCKET for the commands of this test."""
    listener = _Listener(f"{world.base}/notify", world.account.uid)
    world.wherry.environment["NOTIFY_SOCKET"] = listener.path
    yield listener
    listener.close()


def _monitor_of(wherry: Cli) -> str:
    """The process that stays with the container, as its name tells."""
    pid = wherry("inspect", "-f", "{{.State.Pid}}", "box").stdout.strip()
    with open(f"/proc/{pid}/status") as status:
        parent = next(line.split()[1] for line in status if line.startswith("PPid:"))
    with open(f"/proc/{parent}/comm") as name:
        assert name.read() == "wherry-monitor\n"
    return parent


@on_linux  # the pid that systemd is told of is the monitor's
def test_container_that_runs_is_ready(wherry: Cli, busybox_image: str, listener: _Listener) -> None:
    wherry(
        "run", OFFLINE, "-d", "--name", "box", "--sdnotify", "conmon", busybox_image,
        "sh", "-c", "test -z $NOTIFY_SOCKET && sleep 1000",
    )  # fmt: skip

    assert listener.next() == {"MAINPID": _monitor_of(wherry), "READY": "1"}


@on_linux
def test_container_that_is_healthy_is_ready(
    wherry: Cli, busybox_image: str, listener: _Listener
) -> None:
    wherry(
        "run", OFFLINE, "-d", "--name", "box", "--sdnotify", "healthy",
        "--health-cmd", "test -e /well", "--health-interval", "100ms",
        busybox_image, "sleep", "1000",
    )  # fmt: skip
    first = listener.next()
    silent = listener.is_silent()
    wherry("exec", "box", "touch", "/well")

    assert first == {"MAINPID": _monitor_of(wherry)}
    assert silent
    assert listener.next() == {"READY": "1"}


# What sd_notify(3) does; perl is on every Debian, and busybox has no such program.
_SAY = (
    "use Socket; socket(S, AF_UNIX, SOCK_DGRAM, 0);"
    "send(S, $ARGV[0], 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET})) or die $!"
)


@on_linux
def test_program_in_the_container_says_that_it_is_ready(
    wherry: Cli, busybox_image: str, listener: _Listener
) -> None:
    need_tool("perl")
    tools = [word for path in ("/usr", "/lib", "/lib64") if os.path.isdir(path)
             for word in ("-v", f"{path}:{path}:ro")]  # fmt: skip
    wherry(
        "run", OFFLINE, "-d", "--name", "box", "--sdnotify", "container", "--user", "7:8", *tools,
        busybox_image, "sleep", "1000",
    )  # fmt: skip
    first = listener.next()

    # The monitor goes on in a fresh interpreter, and the socket with it.
    def is_settled() -> bool:
        with open(f"/proc/{first['MAINPID']}/cmdline") as words:
            return "wherry_linux.handover" in words.read()

    wait_until(is_settled, Deadline(60, "the monitor to settle"))
    said = "STATUS=up\nMAINPID=1\nFDSTORE=1\nREADY=1"
    wherry("exec", "box", "/usr/bin/perl", "-e", _SAY, said)

    assert first == {"MAINPID": _monitor_of(wherry)}
    assert listener.next() == {"STATUS": "up", "READY": "1"}


@on_linux
def test_socket_of_nobody_is_no_harm(wherry: Cli, busybox_image: str, host_dir: str) -> None:
    result = wherry(
        "run", OFFLINE, "--rm", "--sdnotify", "conmon", busybox_image, "echo", "well",
        env={"NOTIFY_SOCKET": f"{host_dir}/nosuch"},
    )  # fmt: skip

    assert (result.stdout, result.stderr) == ("well\n", "")


def test_nobody_is_told_who_was_not_asked_for(
    wherry: Cli, busybox_image: str, listener: _Listener
) -> None:
    wherry("run", OFFLINE, "--rm", busybox_image, "sh", "-c", "test -z $NOTIFY_SOCKET")

    assert listener.is_silent()
