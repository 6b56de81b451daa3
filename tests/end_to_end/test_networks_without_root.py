"""Networks of unprivileged users: published ports, the way to the host, and what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.hosts import HOST, NEIGHBOUR, PrivateHost
from support.networks import FETCH, IDLE, SERVER, ask_by_udp, serve
from support.settings import as_rootless
from support.waiting import Deadline, wait_gone, wait_until

if TYPE_CHECKING:
    from support.cli import Cli
    from support.world import World

pytestmark = as_rootless

# That of the user's own, and the default one.
EITHER = pytest.mark.parametrize("network", ["net", "bridge"])


@pytest.fixture
def host(wherry: Cli, host: PrivateHost) -> PrivateHost:
    """A host of the test's own, on which the command runs, and has a network `net`."""
    wherry("network", "create", "net")
    return host


def serve_on_net(wherry: Cli, *options: str) -> None:
    """A container `web` that answers on port 80, as soon as it does."""
    serve(wherry, "--name", "web", "--network", "net", *options)


def fetch_from(wherry: Cli, container: str, url: str) -> str:
    """What curl gets in a container's network."""
    pid = wherry("inspect", "--format", "{{.State.Pid}}", container).stdout.strip()
    curl = ["nsenter", "--target", pid, "--net", "curl", "-s", "-m", "30", url]
    return subprocess.run(curl, capture_output=True, text=True, check=False).stdout


def record(world: World) -> dict[str, object]:
    """What is noted of the namespace that the networks are in; nothing where there is none."""
    path = Path(world.root, "run/networks/namespace.json")
    try:
        found: dict[str, object] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found


def keeper(world: World) -> int:
    return int(str(record(world)["pid"]))


# ---- published ports ----


def test_published_port_answers_everywhere(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    serve_on_net(wherry, "-p", "8080:80")

    for url in ("127.0.0.1:8080", "[::1]:8080", f"{HOST}:8080"):
        assert host.run("curl", "-s", "-m", "30", f"http://{url}") == "hello\n", url
    assert host.run_outside("curl", "-s", "-m", "30", f"http://{HOST}:8080") == "hello\n"
    assert fetch_from(wherry, "web", f"http://{HOST}:8080") == "hello\n"
    assert wherry("port", "web").lines == ["80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"]


def test_many_connections_come_through(wherry: Cli, host: PrivateHost, busybox_image: str) -> None:
    serve_on_net(wherry, "-p", "8080:80")

    fetch = f"for n in $(seq 100); do curl -s -m 30 http://{HOST}:8080; done"

    assert host.run_outside("sh", "-c", fetch) == "hello\n" * 100


def test_port_of_the_default_network_answers_everywhere(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    serve(wherry, "--name", "web", "-p", "8080:80")

    for url in ("127.0.0.1:8080", "[::1]:8080", f"{HOST}:8080"):
        assert host.run("curl", "-s", "-m", "30", f"http://{url}") == "hello\n", url
    assert host.run_outside("curl", "-s", "-m", "30", f"http://{HOST}:8080") == "hello\n"

    wherry("port", "rm", "web", "8080:80")
    assert host.run("curl", "-s", "-m", "1", "http://127.0.0.1:8080", check=False) == ""


@pytest.mark.parametrize("network", ["six", "bridge"])
def test_client_of_ipv6_keeps_its_address_where_the_container_has_ipv6(
    wherry: Cli, host: PrivateHost, busybox_image: str, network: str
) -> None:
    for run, link, end in ((host.run, "outside", 1), (host.run_outside, "inside", 2)):
        run("ip", "address", "add", f"fd00:99::{end}/64", "dev", link, "nodad")
    host.run("ip", "route", "add", "default", "via", "fd00:99::2")
    wherry("network", "create", "--ipv6", "six")
    serve(wherry, "--name", "web", "--network", network, "-p", "8080:80")
    # What listens by IPv4 only is found, too.
    old = ("httpd", "-f", "-p", "0.0.0.0:80")
    wherry("run", "-d", "--name", "old", "--network", network, "-p", "8081:80", busybox_image, *old)

    connect = "import socket; s = socket.create_connection(('fd00:99::1', 8080), 30)"
    client = host.start_outside("python3", "-c", f"{connect}; print('up', flush=True); s.recv(1)")
    assert client.stdout is not None
    client.stdout.readline()
    seen = "990000FD000000000000000002000000"

    wait_until(
        lambda: seen in wherry("exec", "web", "cat", "/proc/net/tcp6").stdout,
        Deadline(60, "the client's address"),
    )
    client.kill()
    client.communicate()
    by_ipv4 = ["curl", "-s", "-o", "/dev/null", "-m", "30", "-w", "%{http_code}"]
    wait_until(
        lambda: host.run_outside(*by_ipv4, "http://[fd00:99::1]:8081", check=False) == "404",
        Deadline(60, "an answer by IPv4"),
    )


@EITHER
def test_client_of_a_port_on_which_nobody_listens_is_hung_up_on(
    wherry: Cli, host: PrivateHost, busybox_image: str, network: str
) -> None:
    wherry("run", "-d", "--network", network, "-p", "8080:80", busybox_image, *IDLE)
    wait = (
        "import socket\n"
        f"s = socket.create_connection(('{HOST}', 8080), 30)\n"
        "try: print(s.recv(1))\n"
        "except ConnectionError: print(b'')"
    )

    assert host.run_outside("python3", "-c", wait) == "b''\n"


@EITHER
def test_each_side_ends_what_it_says_for_itself(
    wherry: Cli, host: PrivateHost, busybox_image: str, network: str
) -> None:
    options = ("--name", "count", "--network", network, "-p", "8080:80")
    wherry("run", "-d", *options, busybox_image, "nc", "-l", "-p", "80", "-e", "wc", "-c")
    size = 3_000_000
    talk = (
        "import socket\n"
        f"s = socket.create_connection(('{HOST}', 8080), 30)\n"
        f"s.sendall(bytes({size})); s.shutdown(socket.SHUT_WR); print(s.recv(99).decode())"
    )
    # What does not listen yet hangs up at once.
    wait_until(
        lambda: str(size) in host.run_outside("python3", "-c", talk, check=False),
        Deadline(60, "an answer after the end of the question"),
    )


def test_port_published_on_loopback_is_not_the_worlds(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    serve_on_net(wherry, "-p", "127.0.0.1:8080:80")

    assert host.run("curl", "-s", "-m", "30", "http://127.0.0.1:8080") == "hello\n"
    shut = host.run_outside("curl", "-s", "-m", "1", f"http://{HOST}:8080", check=False)
    assert shut == ""


@EITHER
def test_udp_port_is_published(
    wherry: Cli, host: PrivateHost, busybox_image: str, network: str
) -> None:
    options = ("--name", "echo", "--network", network, "-p", "5353:53/udp")
    wherry("run", "-d", *options, busybox_image, *IDLE)

    answer = ask_by_udp(wherry, host, "echo", 5353)

    assert answer == f"b'ping {NEIGHBOUR}'\n"


@EITHER
def test_published_port_keeps_the_clients_address(
    wherry: Cli, host: PrivateHost, busybox_image: str, network: str
) -> None:
    serve(wherry, "--name", "web", "--network", network, "-p", "8080:80")
    connect = f"import socket; s = socket.create_connection(('{HOST}', 8080), 30)"
    client = host.start_outside("python3", "-c", f"{connect}; print('up', flush=True); s.recv(1)")
    assert client.stdout is not None
    client.stdout.readline()

    def seen() -> bool:
        sockets = wherry("exec", "web", "cat", "/proc/net/tcp", "/proc/net/tcp6").stdout
        return "".join(f"{int(part):02X}" for part in reversed(NEIGHBOUR.split("."))) in sockets

    wait_until(seen, Deadline(60, "the client's address"))
    client.kill()
    client.communicate()


def test_ports_change_while_it_runs(wherry: Cli, host: PrivateHost, busybox_image: str) -> None:
    serve_on_net(wherry)

    wherry("port", "add", "web", "8080:80")
    page = host.run_outside("curl", "-s", "-m", "30", f"http://{HOST}:8080")
    wherry("port", "rm", "web", "8080:80")

    assert page == "hello\n"
    assert host.run("curl", "-s", "-m", "1", "http://127.0.0.1:8080", check=False) == ""
    assert wherry("port", "web").stdout == ""


def test_port_leads_to_the_network_that_is_left(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    wherry("network", "create", "other")
    serve_on_net(wherry, "-p", "8080:80")

    wherry("network", "connect", "other", "web")
    wherry("network", "disconnect", "net", "web")

    assert host.run_outside("curl", "-s", "-m", "30", f"http://{HOST}:8080") == "hello\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("-p", "8080:80"),
            (
                "wherry: Bind for 0.0.0.0:8080 failed: port is already allocated\n"
                "container web publishes it\n"
            ),
        ),
        (
            ("-p", "80:80"),
            (
                "wherry: cannot publish port 80: only root may bind it\n"
                "publish a port from 1024 on; `wherry doctor` shows how to allow lower ones\n"
            ),
        ),
        (("-p", "8081:80/sctp"), "wherry: only root can publish SCTP ports\n"),
    ],
)
def test_port_that_cannot_be_published_is_one_clear_error(
    wherry: Cli, host: PrivateHost, busybox_image: str, options: tuple[str, ...], said: str
) -> None:
    serve_on_net(wherry, "-p", "8080:80")

    for network in ("net", "bridge"):
        result = wherry(
            "run", "--rm", "--network", network, *options, busybox_image, "true", check=False
        )

        assert (result.returncode, result.stderr) == (125, said)
    assert len(wherry("ps", "-aq").lines) == 1


# ---- the default network, and others beside it ----


def test_container_on_the_default_network_is_connected_to_another(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    serve_on_net(wherry)
    serve(wherry, "--name", "asker", "-p", "8081:80")

    wherry("network", "connect", "net", "asker")
    page = wherry("exec", "asker", "sh", "-c", f"{FETCH} web 80").stdout
    wherry("network", "disconnect", "bridge", "asker")

    assert page.endswith("hello\n")
    assert "via 172." in wherry("exec", "asker", "ip", "route").stdout
    assert host.run_outside("curl", "-s", "-m", "30", f"http://{HOST}:8081") == "hello\n"


def test_container_is_on_the_default_network_and_on_another(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    both = ("--network", "bridge", "--network", "net")
    shown = wherry("run", "--rm", *both, busybox_image, "ip", "address").stdout

    assert "eth0" in shown
    assert "eth1" in shown


def test_containers_reach_the_host_but_not_its_loopback(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    servers = [
        host.start("python3", "-u", "-m", "http.server", "--bind", address, port)
        for address, port in (("0.0.0.0", "9998"), ("127.0.0.1", "9999"))
    ]
    for server in servers:
        assert server.stdout is not None
        server.stdout.readline()
    # The container's own loopback gives way to the route to the bridge.
    way = "$(ip route | cut -d' ' -f3 | head -n 1)"
    script = f"ip address del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via {way}"
    powers = ("--cap-add", "NET_ADMIN", "--sysctl", "net.ipv4.conf.default.route_localnet=1")

    wherry("run", "-d", "--name", "box", "--network", "net", *powers, busybox_image, *IDLE)
    reached = fetch_from(wherry, "box", f"http://{HOST}:9998")
    wherry("exec", "box", "sh", "-c", script)
    guarded = fetch_from(wherry, "box", "http://127.0.0.1:9999")

    for server in servers:
        server.kill()
        server.communicate()
    assert f"{HOST}\thost.docker.internal" in wherry("exec", "box", "cat", "/etc/hosts").lines
    assert "Directory listing" in reached
    assert guarded == ""


# ---- no helper ----


def test_networks_without_a_helper_lead_to_each_other_alone(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    for program in ("/usr/bin/pasta", "/usr/bin/slirp4netns"):
        host.run("mount", "--bind", "/dev/null", program)
    wherry("network", "create", "--internal", "closed")

    refused = wherry("run", "--rm", "--network", "net", busybox_image, "true", check=False)
    wherry("run", "-d", "--name", "one", "--network", "closed", busybox_image, *IDLE)
    wherry("run", "--rm", "--network", "closed", busybox_image, "ping", "-c", "1", "one")

    assert refused.returncode == 125
    assert refused.stderr == (
        "wherry: cannot connect the container to a network:"
        " neither pasta nor slirp4netns is installed\n"
        "install the package passt, or use --network host or --network none\n"
    )


def test_network_leads_out_by_slirp4netns_where_that_is_all(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    host.run("mount", "--bind", "/dev/null", "/usr/bin/pasta")
    server = "import socket; s = socket.create_server(('', 7777)); print('up', flush=True)\n"
    server += "c, peer = s.accept(); print(peer[0], flush=True)"
    python = host.start_outside("python3", "-c", server)
    assert python.stdout is not None
    python.stdout.readline()

    for network in ("net", "bridge"):
        options = ("--name", network, "--network", network, "-p", "8080:80")
        wherry("run", "-d", *options, busybox_image, "sh", "-c", SERVER)

        def answers() -> bool:
            url = f"http://{HOST}:8080"
            return host.run_outside("curl", "-s", "-m", "30", url, check=False) == "hello\n"

        wait_until(answers, Deadline(60, "the server in the container"))
        wherry("rm", "-f", network)
    wherry(
        "run", "--rm", "--network", "net", busybox_image, "sh", "-c",
        f"echo hi | nc -w 30 {NEIGHBOUR} 7777",
    )  # fmt: skip

    assert python.stdout.readline().decode().strip() == HOST
    python.communicate()


# ---- what is left ----


def test_namespace_goes_with_the_last_container(
    wherry: Cli, world: World, host: PrivateHost, busybox_image: str
) -> None:
    wherry("run", "-d", "--name", "one", "--network", "net", busybox_image, *IDLE)
    first = keeper(world)
    wherry("run", "--rm", "--network", "net", busybox_image, "true")

    assert keeper(world) == first
    wherry("rm", "-f", "one")
    wait_gone([first])
    wait_until(lambda: not record(world), Deadline(60, "its record to go"))


def test_namespace_that_was_killed_comes_back_with_the_next_container(
    wherry: Cli, world: World, host: PrivateHost, busybox_image: str
) -> None:
    serve_on_net(wherry, "-p", "8080:80")
    first = keeper(world)
    os.kill(first, signal.SIGKILL)
    wait_gone([first])

    page = wherry("run", "--rm", "--network", "net", busybox_image, "sh", "-c", f"{FETCH} web 80")

    assert page.stdout.endswith("hello\n")
    assert host.run_outside("curl", "-s", "-m", "30", f"http://{HOST}:8080") == "hello\n"


def test_killed_monitor_leaves_no_port_address_or_namespace(
    wherry: Cli, world: World, host: PrivateHost, busybox_image: str
) -> None:
    wherry("network", "create", "--subnet", "10.77.0.0/30", "small")
    options = ("--network", "small", "-p", "8080:80")
    name = wherry("run", "-d", *options, busybox_image, *IDLE).stdout.strip()
    state = Path(world.root, "data/containers", name, "state.json")
    monitor = int(json.loads(state.read_text())["MonitorPid"])
    os.kill(monitor, signal.SIGKILL)
    wait_gone([monitor])

    wherry("run", "--rm", *options, busybox_image, "true")

    wait_until(lambda: not record(world), Deadline(60, "the namespace to go"))


def test_namespace_of_before_a_reboot_is_made_anew(
    wherry: Cli, world: World, host: PrivateHost, busybox_image: str
) -> None:
    wherry("run", "--rm", "--network", "net", busybox_image, "true")
    wait_until(lambda: not record(world), Deadline(60, "the namespace to go"))
    stale = {"pid": os.getpid(), "startTime": 1, "bootId": "another", "helper": None}
    Path(world.root, "run/networks/namespace.json").write_text(json.dumps(stale))

    shown = wherry("run", "--rm", "--network", "net", busybox_image, "ip", "route").stdout

    assert shown.startswith("default via 172.")
