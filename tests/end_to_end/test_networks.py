"""Networks of root's containers and the host: ports, addresses, rules, and what is left."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

from support import name_server
from support.hosts import HOST, NEIGHBOUR, PrivateHost
from support.networks import FETCH, IDLE, address, ask_by_udp, serve
from support.settings import as_root
from support.waiting import Deadline, wait_gone, wait_until

if TYPE_CHECKING:
    from support.cli import Cli

pytestmark = as_root


# ---- the default network ----


def test_the_world_sees_the_hosts_address(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    server = "import socket; s = socket.create_server(('', 7777)); print('up', flush=True)\n"
    server += "c, peer = s.accept(); print(peer[0], flush=True)"
    python = host.start_outside("python3", "-c", server)
    assert python.stdout is not None
    python.stdout.readline()

    wherry("run", "--rm", busybox_image, "sh", "-c", f"echo hi | nc -w 30 {NEIGHBOUR} 7777")

    assert python.stdout.readline().decode().strip() == HOST
    python.communicate()


# ---- networks of the user's ----


def test_names_of_the_world_are_asked_of_whom_dns_names_and_not_from_internal_networks(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    server = host.start_outside("python3", str(name_server.__file__), NEIGHBOUR, "9.8.7.6")
    assert server.stdout is not None
    server.stdout.readline()
    wherry("network", "create", "inner")
    wherry("network", "create", "--internal", "closed")

    run = ("run", "--rm", "--dns", NEIGHBOUR)
    found = wherry(*run, "--network", "inner", busybox_image, "nslookup", "far.example")
    shut = wherry(
        *run, "--network", "closed", busybox_image, "nslookup", "far.example", check=False
    )

    server.kill()
    server.communicate()
    assert "Address: 9.8.7.6\n" in found.stdout
    assert "9.8.7.6" not in shut.stdout


def test_ipv6_network_has_addresses_of_its_own(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    wherry("network", "create", "--ipv6", "six")
    serve(wherry, "--name", "web", "--network", "six", "-p", "8080:80", image=busybox_image)
    template = "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}"
    own = wherry("inspect", "--format", template, "web").stdout.strip()

    page = wherry("run", "--rm", "--network", "six", busybox_image, "sh", "-c", f"{FETCH} {own} 80")

    assert own.startswith("fd")
    assert page.stdout.endswith("hello\n")
    assert "hello" in host.run("curl", "-s", "-m", "30", "http://[::1]:8080")


# ---- published ports ----


def test_published_port_keeps_the_clients_address(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    wherry(
        "run", "-d", "--name", "web", "-p", "8080:80", busybox_image, "nc", "-l", "-p", "80", "-e",
        "sh", "-c", "cat /proc/net/tcp /proc/net/tcp6; sleep 1",
    )  # fmt: skip
    fetch = "import socket,sys\n"
    fetch += f"s = socket.create_connection(('{HOST}', 8080), 30)\n"
    fetch += "print(s.makefile().read())"
    pages: list[str] = []

    def answered() -> bool:
        pages.append(host.run_outside("python3", "-c", fetch, check=False))
        return bool(pages[-1].strip())

    wait_until(answered, Deadline(60, "an answer"))

    seen = "".join(f"{int(part):02X}" for part in reversed(NEIGHBOUR.split(".")))
    assert f"{seen}:" in pages[-1]


def test_published_port_answers_everywhere(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    serve(wherry, "--name", "web", "-p", "8080:80", image=busybox_image)

    for url in ("127.0.0.1:8080", "[::1]:8080", f"{HOST}:8080"):
        assert host.run("curl", "-s", "-m", "30", f"http://{url}") == "hello\n", url
    assert host.run_outside("curl", "-s", "-m", "30", f"http://{HOST}:8080") == "hello\n"
    own = wherry("exec", "web", "sh", "-c", f"{FETCH} {HOST} 8080").stdout
    assert own.endswith("hello\n")
    assert wherry("port", "web").lines == ["80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"]
    ports = wherry("ps", "--format", "{{.Ports}}").stdout
    assert ports == "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp\n"


def test_port_published_on_loopback_is_not_the_worlds(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    serve(wherry, "--name", "web", "-p", "127.0.0.1:8080:80", image=busybox_image)

    assert host.run("curl", "-s", "-m", "30", "http://127.0.0.1:8080") == "hello\n"
    shut = host.run_outside("curl", "-s", "-m", "1", f"http://{HOST}:8080", check=False)
    assert shut == ""


def test_containers_do_not_reach_the_hosts_loopback(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    server = host.start("python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "9999")
    assert server.stdout is not None
    server.stdout.readline()
    # The container's own loopback gives way to the route to the bridge.
    way = "$(ip route | cut -d' ' -f3 | head -n 1)"
    script = f"ip address del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via {way}"

    result = wherry(
        "run", "--rm", "--cap-add", "NET_ADMIN", "--sysctl",
        "net.ipv4.conf.default.route_localnet=1", busybox_image, "sh", "-c",
        f"{script}; {FETCH.replace('-w 30', '-w 1')} 127.0.0.1 9999", check=False,
    )  # fmt: skip

    server.kill()
    server.wait()
    assert "HTTP" not in result.stdout


def test_udp_port_is_published(wherry: Cli, host: PrivateHost, busybox_image: str) -> None:
    wherry("run", "-d", "--name", "echo", "-p", "5353:53/udp", busybox_image, *IDLE)

    answer = ask_by_udp(wherry, host, "echo", 5353)

    assert answer == f"b'ping {NEIGHBOUR}'\n"


def test_ports_change_while_it_runs(wherry: Cli, host: PrivateHost, busybox_image: str) -> None:
    serve(wherry, "--name", "web", image=busybox_image)

    wherry("port", "add", "web", "8080:80")
    page = host.run_outside("curl", "-s", "-m", "30", f"http://{HOST}:8080")
    wherry("port", "rm", "web", "8080:80")

    assert page == "hello\n"
    assert host.run("curl", "-s", "-m", "1", "http://127.0.0.1:8080", check=False) == ""
    assert wherry("port", "web").stdout == ""


def test_port_range_takes_what_is_free(wherry: Cli, host: PrivateHost, busybox_image: str) -> None:
    for name in ("one", "two"):
        wherry("run", "-d", "--name", name, "-p", "7000-7001:80", busybox_image, *IDLE)

    assert wherry("port", "one", "80").lines[0] == "0.0.0.0:7000"
    assert wherry("port", "two", "80").lines[0] == "0.0.0.0:7001"
    full = wherry("run", "-d", "-p", "7000-7001:80", busybox_image, *IDLE, check=False)
    assert full.returncode == 125


def test_busy_port_names_who_has_it(wherry: Cli, host: PrivateHost, busybox_image: str) -> None:
    serve(wherry, "--name", "web", "-p", "8080:80", image=busybox_image)

    result = wherry("run", "--rm", "-p", "8080:80", busybox_image, "true", check=False)

    assert result.returncode == 125
    assert result.stderr == (
        "wherry: Bind for 0.0.0.0:8080 failed: port is already allocated\n"
        "container web publishes it\n"
    )
    assert len(wherry("ps", "-aq").lines) == 1


def test_port_published_twice_by_one_container_is_told(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    twice = ("-p", "8080:80", "-p", "8080:81")

    result = wherry("run", "--rm", *twice, busybox_image, "true", check=False)

    assert result.returncode == 125
    assert result.stderr == (
        "wherry: Bind for 0.0.0.0:8080 failed: port is already allocated\n"
        "this container publishes it twice\n"
    )


def test_sctp_port_has_one_owner_and_is_led_into_the_container(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    run = ("run", "-d", "-p", "9000:90/sctp")
    wherry(*run, "--name", "first", busybox_image, *IDLE)

    second = wherry(*run, "--name", "second", busybox_image, *IDLE, check=False)

    assert wherry("port", "first").lines[0] == "90/sctp -> 0.0.0.0:9000"
    assert second.returncode == 125
    assert second.stderr == (
        "wherry: Bind for 0.0.0.0:9000 failed: port is already allocated\n"
        "container first publishes it\n"
    )
    led = "sctp . 9000 : " + address(wherry, "first") + " . 90"
    assert led in host.run("nft", "list", "table", "inet", "wherry")
    # Whoever was killed has it no more.
    monitor = json.loads(wherry("inspect", "first").stdout)[0]["State"]["Pid"]
    kill_monitor(monitor)
    wherry(*run, "--name", "third", busybox_image, *IDLE)


def kill_monitor(pid: int) -> None:
    """Kill the monitor of the container whose first process this is."""
    with open(f"/proc/{pid}/stat") as file:
        monitor = int(file.read().rpartition(")")[2].split()[1])
    os.kill(monitor, signal.SIGKILL)
    wait_gone([monitor])


def test_all_exposed_ports_are_published_at_random(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    serve(
        wherry, "--name", "web", "--expose", "80", "--expose", "53/udp", "-P", image=busybox_image
    )

    lines = wherry("port", "web").lines

    assert [line.partition(" -> ")[0] for line in lines] == ["53/udp"] * 2 + ["80/tcp"] * 2
    place = lines[2].rpartition(":")[2]
    assert lines[3] == f"80/tcp -> [::]:{place}"
    assert host.run_outside("curl", "-s", "-m", "30", f"http://{HOST}:{place}") == "hello\n"


# ---- what is left ----


def test_killed_monitor_leaves_no_port_and_no_address(
    wherry: Cli, host: PrivateHost, busybox_image: str, wherry_root: str
) -> None:
    wherry("network", "create", "--subnet", "10.77.0.0/30", "small")
    options = ("--network", "small", "-p", "8080:80")
    name = wherry("run", "-d", *options, busybox_image, *IDLE).stdout.strip()
    with open(f"{wherry_root}/data/containers/{name}/state.json") as file:
        monitor = json.load(file)["MonitorPid"]

    os.kill(monitor, signal.SIGKILL)
    wait_gone([monitor])
    serve(wherry, "--name", "web", *options, image=busybox_image)

    assert host.run_outside("curl", "-s", "-m", "30", f"http://{HOST}:8080") == "hello\n"
    assert address(wherry, "web", "small") == "10.77.0.2"


def test_flushed_rules_come_back_with_the_next_command(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    serve(wherry, "--name", "web", "-p", "8080:80", image=busybox_image)
    host.run("nft", "flush", "ruleset")

    wherry("run", "--rm", busybox_image, "true")

    assert "10.200.0.2" not in wherry("exec", "web", "cat", "/proc/net/tcp").stdout
    rules = host.run("nft", "list", "ruleset")
    assert "8080" in rules


def test_rules_of_others_stay_as_they_are(
    wherry: Cli, host: PrivateHost, busybox_image: str
) -> None:
    host.run("iptables", "-A", "FORWARD", "-s", "192.168.77.0/24", "-j", "ACCEPT")
    host.run("iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "nowhere", "-j", "MASQUERADE")
    kinds = [("iptables-save", "-t", table) for table in ("filter", "nat")]
    before = [_without_counters(host.run(*kind)) for kind in kinds]

    wherry("network", "create", "one")
    wherry("run", "--rm", "--network", "one", "-p", "8080:80", busybox_image, "true")
    wherry("network", "rm", "one")

    assert [_without_counters(host.run(*kind)) for kind in kinds] == before


def _without_counters(rules: str) -> list[str]:
    return [line.partition("[")[0] for line in rules.splitlines() if not line.startswith("#")]
