"""`--network host` in a machine: what listens there listens on the host's loopback."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

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
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.mark.parametrize("address", ["", "127.0.0.1:"])
def test_a_server_is_reached_for_as_long_as_it_listens(machine: Cli, address: str) -> None:
    port = free_port()
    serve(machine, f"{address}{port}")

    page = f"http://127.0.0.1:{port}/"
    wait_until(lambda: fetched(page) == "hello\n", Deadline(_SECONDS, "the server"))
    machine("rm", "--force", "web", timeout=120)
    wait_until(lambda: is_free(port), Deadline(_SECONDS, "the port to be free"))


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
