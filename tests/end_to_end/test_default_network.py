"""The network that a container has when nothing is said, and the ports it publishes."""

from __future__ import annotations

import shutil
import socket
from typing import TYPE_CHECKING

import pytest

from support.hosts import open_tun
from support.networks import fetched
from support.ports import free_port
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.cli import Cli
    from support.settings import Setting


@pytest.fixture(autouse=True)
def _has_a_helper(wherry: Cli, setting: Setting) -> Iterator[None]:
    if setting.backend == "vm":
        yield
        return
    if shutil.which("pasta") is None:
        pytest.skip("needs pasta (see packages.txt)")
    with open_tun(wherry):
        yield
        for name in wherry("ps", "--all", "--quiet").lines:
            wherry("rm", "--force", name)


SERVER = "mkdir /www && echo hello >/www/index.html && exec httpd -f -h /www -p 80"


def fetch(port: int) -> str:
    """The page, as soon as the server in the container listens."""
    pages: list[str] = []

    def attempt() -> bool:
        pages.append(fetched(f"http://127.0.0.1:{port}"))
        return pages[-1] != ""

    wait_until(attempt, Deadline(60, f"an answer on port {port}"))
    return pages[-1]


def test_container_has_an_interface_and_a_route(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", "--rm", busybox_image, "ip", "route")

    assert result.stdout.startswith("default via ")


def test_published_port_answers_on_the_host(wherry: Cli, busybox_image: str) -> None:
    port = free_port()
    published = f"127.0.0.1:{port}:80"
    wherry("run", "-d", "--name", "web", "-p", published, busybox_image, "sh", "-c", SERVER)

    assert fetch(port) == "hello\n"
    assert wherry("port", "web").stdout == f"80/tcp -> 127.0.0.1:{port}\n"


def test_random_port_is_told(wherry: Cli, busybox_image: str) -> None:
    wherry("run", "-d", "--name", "web", "-p", "127.0.0.1::80", busybox_image, "sh", "-c", SERVER)

    address, _, port = wherry("port", "web", "80").stdout.strip().rpartition(":")

    assert address == "127.0.0.1"
    assert fetch(int(port)) == "hello\n"


def test_busy_port_is_one_clear_line_and_leaves_nothing(wherry: Cli, busybox_image: str) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]

        result = wherry(
            "run", "--rm", "-p", f"127.0.0.1:{port}:80", busybox_image, "true", check=False
        )

    assert result.returncode == 125
    assert result.stderr.startswith(
        f"wherry: Bind for 127.0.0.1:{port} failed: port is already allocated\n"
    )
    assert wherry("ps", "-aq").stdout == ""


def test_unknown_network_is_refused(wherry: Cli, busybox_image: str) -> None:
    result = wherry("run", "--rm", "--network", "nowhere", busybox_image, "true", check=False)

    assert result.returncode == 125
    assert result.stderr.startswith("wherry: network nowhere not found\n")
