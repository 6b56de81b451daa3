"""Ports of a machine's containers, as they are on the host."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING

import pytest

from support.datagrams import echoed, start_echo
from support.networks import fetched
from support.ports import free_port
from support.terminal import Terminal
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.cli import Cli

pytestmark = [pytest.mark.vm, pytest.mark.network]

SERVER = "mkdir /w; echo hello >/w/index.html; exec httpd -f -p 80 -h /w"


def serve(machine: Cli, *publish: str) -> None:
    machine("run", "-d", "--name", "web", *publish, "busybox", "sh", "-c", SERVER, timeout=120)


def wait_for_server(port: int) -> None:
    wait_until(
        lambda: fetched(f"http://127.0.0.1:{port}/") == "hello\n", Deadline(60, "the server")
    )


def test_a_port_is_reached_on_the_host_while_the_container_runs(machine: Cli) -> None:
    port = free_port()
    serve(machine, "-p", f"127.0.0.1:{port}:80")

    wait_until(
        lambda: fetched(f"http://127.0.0.1:{port}/") == "hello\n", Deadline(60, "the server")
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
        lambda: fetched(f"http://127.0.0.1:{port}/") == "hello\n", Deadline(60, "the server")
    )


def test_a_range_and_addresses_of_ipv6_are_published(machine: Cli) -> None:
    first, other = free_port(count=2), free_port(family=socket.AF_INET6)
    serve(machine, "-p", f"127.0.0.1:{first}-{first + 1}:80-81", "-p", f"[::1]:{other}:80")

    for url in (f"http://127.0.0.1:{first}/", f"http://[::1]:{other}/"):
        wait_until(partial(is_hello, url), Deadline(60, url))
    assert machine("port", "web", "80").lines == [f"127.0.0.1:{first}", f"[::1]:{other}"]


def is_hello(url: str) -> bool:
    return fetched(url) == "hello\n"


def test_without_an_address_all_of_both_kinds_are_published(machine: Cli) -> None:
    port = free_port()
    serve(machine, "-p", f"{port}:80")

    for url in (f"http://127.0.0.1:{port}/", f"http://[::1]:{port}/"):
        wait_until(partial(is_hello, url), Deadline(60, url))
    assert machine("port", "web", "80").lines == [f"0.0.0.0:{port}", f"[::]:{port}"]

    machine("rm", "--force", "web")
    socket.create_server(("::", port), family=socket.AF_INET6).close()


def test_datagrams_are_answered_from_where_they_were_sent_to(machine: Cli) -> None:
    port = free_port(socket.SOCK_DGRAM)
    machine("run", "-d", "--name", "box", "-p", f"{port}:53/udp", "busybox", "sleep", "1000",
            timeout=120)  # fmt: skip
    server = start_echo(machine, "box", "0.0.0.0", 53)

    for host in ("127.0.0.1", "::1"):
        wait_until(partial(echoed, host, port), Deadline(60, f"the server at {host}"))
        # More than a packet holds, there and back.
        wait_until(partial(echoed, host, port, b"x" * 30000), Deadline(60, f"a lot at {host}"))
    machine("rm", "--force", "box", timeout=120)
    server.communicate(timeout=120)


def test_of_a_range_the_first_port_is_taken_that_the_host_has_no_other_use_for(
    machine: Cli,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serve(machine, "-p", f"127.0.0.1:{port}-{port + 20}:80")
        line = machine("port", "web", "80").stdout

    assert port < int(line.rpartition(":")[2]) <= port + 20


def test_a_port_that_is_added_and_taken_leaves_the_others_alone(machine: Cli) -> None:
    port = free_port()
    serve(machine, "-p", f"127.0.0.1:{port}:80")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = machine(
            "port", "add", "web", f"127.0.0.1:{taken.getsockname()[1]}:80", check=False
        )

    assert "port is already allocated" in refused.stderr
    wait_for_server(port)
    assert machine("port", "web").lines == [f"80/tcp -> 127.0.0.1:{port}"]


@pytest.mark.parametrize(
    ("publish", "told"),
    [
        ("192.0.2.7:8080:80", "cannot publish on 192.0.2.7: this host has no such address"),
        ("[2001:db8::a]:8080:80", "cannot publish on [2001:db8::a]: this host has no such address"),
        ("8080:80/sctp", "a machine publishes TCP and UDP, not SCTP"),
    ],
)
def test_what_cannot_be_published_is_told_with_its_reason(
    machine: Cli, publish: str, told: str
) -> None:
    result = machine("run", "-p", publish, "busybox", "echo", "ran", check=False, timeout=120)

    assert (result.returncode, result.stdout) == (125, "")
    assert told in result.stderr


def test_a_person_is_told_who_reaches_a_port_and_a_program_is_not(machine: Cli) -> None:
    port = free_port()
    serve(machine, "-p", f"{port}:80")
    terminal = Terminal(machine, "port", "web")
    try:
        terminal.expect(f"80/tcp -> 0.0.0.0:{port}")
        terminal.expect("others in its networks reach these ports")
        terminal.wait()
    finally:
        terminal.close()

    assert machine("port", "web").stderr == ""
