"""Ports of a machine's containers, as they are on the host."""

from __future__ import annotations

import socket
import urllib.request
from typing import TYPE_CHECKING

import pytest

from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.cli import Cli

pytestmark = [pytest.mark.vm, pytest.mark.network]

SERVER = "mkdir /w; echo hello >/w/index.html; exec httpd -f -p 80 -h /w"


def free_port(family: socket.AddressFamily = socket.AF_INET) -> int:
    with socket.socket(family) as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def serve(machine: Cli, *publish: str) -> None:
    machine("run", "-d", "--name", "web", *publish, "busybox", "sh", "-c", SERVER, timeout=120)


def fetched(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


def wait_for_server(port: int) -> None:
    wait_until(
        lambda: fetched(f"http://127.0.0.1:{port}/") == "hello\n", Deadline(30, "the server")
    )


def test_a_port_is_reached_on_the_host_while_the_container_runs(machine: Cli) -> None:
    port = free_port()
    serve(machine, "-p", f"127.0.0.1:{port}:80")

    wait_until(
        lambda: fetched(f"http://127.0.0.1:{port}/") == "hello\n", Deadline(30, "the server")
    )
    assert machine("port", "web").lines == [f"80/tcp -> 127.0.0.1:{port}"]

    machine("rm", "--force", "web")
    socket.create_server(("127.0.0.1", port)).close()


def test_a_port_that_is_taken_on_the_host_is_an_error_before_anything_runs(machine: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = machine(
            "run", "--name", "web", "-p", f"127.0.0.1:{port}:80", "busybox", "echo", "ran",
            check=False, timeout=120,
        )  # fmt: skip

    assert result.returncode == 125
    assert result.stdout == ""
    assert f"Bind for 127.0.0.1:{port} failed: port is already allocated" in result.stderr


def test_a_port_comes_back_when_the_container_is_started_again(machine: Cli) -> None:
    port = free_port()
    serve(machine, "-p", f"127.0.0.1:{port}:80")
    machine("stop", "-t", "0", "web", timeout=60)
    machine("start", "web", timeout=60)

    wait_until(
        lambda: fetched(f"http://127.0.0.1:{port}/") == "hello\n", Deadline(30, "the server")
    )
