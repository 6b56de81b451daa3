"""Networks: who reaches whom, and by which names."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from support.hosts import private_host
from support.networks import FETCH, IDLE, address, serve
from support.settings import of_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.cli import Cli
    from support.settings import Setting


@pytest.fixture
def bridges(wherry: Cli, setting: Setting) -> Iterator[None]:
    """Where networks harm nobody: on a host of the test's own, or in a machine."""
    if setting.backend == "vm":
        yield
        return
    with private_host(wherry):
        yield


@of_root
def test_container_on_the_default_bridge_reaches_others_by_address(
    wherry: Cli, bridges: None, busybox_image: str
) -> None:
    serve(wherry, "--name", "web", image=busybox_image)

    page = wherry("run", "--rm", busybox_image, "sh", "-c", f"{FETCH} {address(wherry, 'web')} 80")

    assert page.stdout.endswith("hello\n")


@of_root
def test_names_of_the_host_are_known_to_containers(
    wherry: Cli, bridges: None, busybox_image: str
) -> None:
    hosts = wherry("run", "--rm", busybox_image, "cat", "/etc/hosts").lines

    gateway = wherry("run", "--rm", busybox_image, "ip", "route").stdout.split()[2]
    for name in ("host.docker.internal", "host.containers.internal", "gateway.docker.internal"):
        assert f"{gateway}\t{name}" in hosts


@of_root
def test_linked_container_is_known_by_its_alias(
    wherry: Cli, bridges: None, busybox_image: str
) -> None:
    db = wherry("run", "-d", "--name", "db", busybox_image, *IDLE).stdout[:12]

    linked = wherry("run", "--rm", "--link", "db:store", busybox_image, "cat", "/etc/hosts")

    assert f"{address(wherry, 'db')}\tstore {db} db" in linked.lines
    assert linked.stderr == ""


def test_containers_on_a_network_find_each_other_by_name_alias_and_id(
    wherry: Cli, bridges: None, busybox_image: str
) -> None:
    wherry("network", "create", "--subnet", "10.77.0.0/24", "inner")
    web = wherry(
        "run", "-d", "--name", "web", "--network", "inner", "--network-alias", "www",
        busybox_image, *IDLE,
    ).stdout.strip()  # fmt: skip
    own = address(wherry, "web", "inner")

    for name in ("web", "www", web[:12], "WEB", "web.inner"):
        found = wherry("run", "--rm", "--network", "inner", busybox_image, "nslookup", name)
        assert f"Address: {own}\n" in found.stdout, name
    back = wherry("run", "--rm", "--network", "inner", busybox_image, "nslookup", own)
    assert "name = web.inner" in back.stdout


def test_a_name_goes_when_its_container_ends_or_is_renamed(
    wherry: Cli, bridges: None, busybox_image: str
) -> None:
    wherry("network", "create", "inner")
    for name in ("asker", "web"):
        wherry("run", "-d", "--name", name, "--network", "inner", busybox_image, *IDLE)

    def finds(name: str) -> bool:
        result = wherry("exec", "asker", "nslookup", name, check=False)
        return f"Name:\t{name}\nAddress: " in result.stdout

    assert finds("web")
    wherry("rename", "web", "shop")
    assert finds("shop")
    wherry("rm", "-f", "shop")
    assert not finds("shop")


def test_twenty_containers_resolve_and_reach_each_other(
    wherry: Cli, bridges: None, busybox_image: str
) -> None:
    wherry("network", "create", "many")
    names = [f"c{number}" for number in range(20)]

    def start(name: str) -> None:
        serve(wherry, "--name", name, "--network", "many", image=busybox_image)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, names))
    for name in names[::4]:
        others = " ".join(names)
        loop = f"for n in {others}; do {FETCH} $n 80 | grep -c hello; done"
        result = wherry("exec", name, "sh", "-c", loop, timeout=120)
        assert result.lines == ["1"] * 20, name
    used = json.loads(wherry("network", "inspect", "many").stdout)[0]["Containers"]
    assert len({each["IPv4Address"] for each in used.values()}) == 20


def test_networks_are_apart(wherry: Cli, bridges: None, busybox_image: str) -> None:
    for name in ("one", "two"):
        wherry("network", "create", name)
        serve(wherry, "--name", f"web-{name}", "--network", name, image=busybox_image)
    target = address(wherry, "web-two", "two")

    across = wherry(
        "exec", "web-one", "sh", "-c", f"{FETCH.replace('-w 30', '-w 1')} {target} 80", check=False
    )

    assert "hello" not in across.stdout


def test_internal_network_leads_nowhere(wherry: Cli, bridges: None, busybox_image: str) -> None:
    wherry("network", "create", "--internal", "closed")
    serve(wherry, "--name", "web", "--network", "closed", image=busybox_image)

    routes = wherry("run", "--rm", "--network", "closed", busybox_image, "ip", "route").stdout
    within = wherry(
        "run", "--rm", "--network", "closed", busybox_image, "sh", "-c", f"{FETCH} web 80"
    )

    assert "default" not in routes
    assert within.stdout.endswith("hello\n")


def test_addresses_are_given_as_asked(wherry: Cli, bridges: None, busybox_image: str) -> None:
    wherry("network", "create", "--subnet", "10.77.0.0/24", "--ip-range", "10.77.0.128/25", "net")

    shown = wherry(
        "run", "--rm", "--network", "net", "--ip", "10.77.0.9", "--mac-address",
        "02:00:00:00:00:09", busybox_image, "ip", "address", "show", "eth0",
    ).stdout  # fmt: skip
    chosen = wherry("run", "--rm", "--network", "net", busybox_image, "hostname", "-i").stdout

    assert "inet 10.77.0.9/24" in shown
    assert "02:00:00:00:00:09" in shown
    assert chosen == "10.77.0.128\n"


def test_container_is_on_several_networks(wherry: Cli, bridges: None, busybox_image: str) -> None:
    for name in ("one", "two"):
        wherry("network", "create", name)
    wherry(
        "run", "-d", "--name", "both", "--network", "one", "--network", "two", busybox_image, *IDLE
    )

    links = wherry("exec", "both", "ip", "link").stdout

    assert "eth0" in links
    assert "eth1" in links
    networks = wherry(
        "inspect", "--format", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{end}}", "both"
    )
    assert networks.stdout.split() == ["one", "two"]


def test_connect_and_disconnect_while_it_runs(
    wherry: Cli, bridges: None, busybox_image: str
) -> None:
    wherry("network", "create", "one")
    serve(wherry, "--name", "web", "--network", "one", image=busybox_image)
    wherry("run", "-d", "--name", "asker", busybox_image, *IDLE)

    wherry("network", "connect", "one", "asker")
    page = wherry("exec", "asker", "sh", "-c", f"{FETCH} web 80")
    wherry("network", "disconnect", "one", "asker")

    assert page.stdout.endswith("hello\n")
    assert "eth1" not in wherry("exec", "asker", "ip", "link").stdout
    assert "127.0.0.11" not in wherry("exec", "asker", "cat", "/etc/resolv.conf").stdout
    on_it = json.loads(wherry("network", "inspect", "one").stdout)[0]["Containers"]
    assert [each["Name"] for each in on_it.values()] == ["web"]


def test_what_was_connected_is_so_after_a_restart(
    wherry: Cli, bridges: None, busybox_image: str
) -> None:
    wherry("network", "create", "one")
    wherry("run", "-d", "--name", "box", busybox_image, *IDLE)
    wherry("network", "connect", "--alias", "case", "one", "box")
    wherry("network", "disconnect", "bridge", "box")

    wherry("restart", "-t", "0", "box")

    template = "{{range $k, $v := .NetworkSettings.Networks}}{{$k}}{{$v.Aliases}} {{end}}"
    assert wherry("inspect", "--format", template, "box").stdout == "one[case] \n"
