"""`--network host` in a machine: what listens there listens on the host's loopback."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING

import pytest

from support.datagrams import echoed, start_echo
from support.networks import fetched
from support.ports import free_port
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.cli import Cli

pytestmark = [pytest.mark.vm, pytest.mark.network]

_SECONDS = 60


def serve(machine: Cli, address: str) -> None:
    script = f"mkdir /w; echo hello >/w/index.html; exec httpd -f -p {address} -h /w"
    machine("run", "-d", "--network", "host", "--name", "web", "busybox", "sh", "-c", script,
            timeout=120)  # fmt: skip


def is_free(port: int) -> bool:
    try:
        socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("listens", "reached"),
    [
        ("", "127.0.0.1"),
        ("127.0.0.1:", "127.0.0.1"),
        # Where many a development server is, that says localhost.
        ("[::1]:", "[::1]"),
    ],
)
def test_a_server_is_reached_for_as_long_as_it_listens(
    machine: Cli, listens: str, reached: str
) -> None:
    port = free_port()
    url = f"http://{reached}:{port}/"
    serve(machine, f"{listens}{port}")

    wait_until(lambda: fetched(url) == "hello\n", Deadline(_SECONDS, "the server"))
    machine("rm", "--force", "web", timeout=120)
    wait_until(lambda: is_free(port), Deadline(_SECONDS, "the port to be free"))


@pytest.mark.parametrize(
    ("listens", "reached"),
    [
        ("0.0.0.0", ["127.0.0.1"]),
        ("127.0.0.1", ["127.0.0.1"]),
        ("::1", ["::1"]),
        ("::", ["::1", "127.0.0.1"]),
    ],
)
def test_a_server_of_datagrams_is_reached(machine: Cli, listens: str, reached: list[str]) -> None:
    port = free_port(socket.SOCK_DGRAM)
    machine("run", "-d", "--network", "host", "--name", "box", "busybox", "sleep", "1000",
            timeout=120)  # fmt: skip
    server = start_echo(machine, "box", listens, port)

    for each in reached:
        wait_until(partial(echoed, each, port), Deadline(_SECONDS, f"the server at {each}"))
    machine("rm", "--force", "box", timeout=120)
    server.communicate(timeout=120)


def test_a_port_that_the_host_uses_is_told_of_while_the_container_runs(machine: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = machine.start(
            "run", "--rm", "--network", "host", "--name", "web", "busybox", "httpd", "-f", "-p",
            str(port),
        )  # fmt: skip
        assert process.stderr is not None
        said = process.stderr.readline().decode()
        machine("rm", "--force", "web", timeout=120)
        process.communicate(timeout=120)

    assert said == (
        f"wherry: --network host: Bind for 127.0.0.1:{port} failed: port is already allocated\n"
    )
