"""Which networks there are, which subnets they get, and who has which address."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wherry import paths
from wherry.errors import AccessDenied, Conflict, NotFound, UsageError, WherryError
from wherry.network import leases
from wherry.network.ip import read_subnet
from wherry.network.options import read_subnets
from wherry.network.store import NetworkStore, subnets


@pytest.fixture(autouse=True)
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path))
    Path(paths.run()).mkdir(parents=True)


def store(*taken: str) -> NetworkStore:
    return NetworkStore(lambda: taken)


def container(name: str) -> str:
    """A container that runs, as far as leases look."""
    os.makedirs(paths.run_container(name), exist_ok=True)
    return name


def lease(network: dict[str, object], name: str, wanted: str = "") -> str:
    def complete(addresses: dict[str, str]) -> dict[str, object]:
        return {
            "IPAddress": addresses["IPv4Address"],
            "GlobalIPv6Address": addresses.get("IPv6Address", ""),
            "NetworkID": network["Id"],
        }

    asked = {"IPv4Address": wanted} if wanted else {}
    return str(leases.lease(network, container(name), asked, complete)["IPAddress"])


def test_three_networks_are_there_from_the_beginning() -> None:
    assert [each["Name"] for each in store().networks()] == ["bridge", "host", "none"]


def test_a_subnet_is_chosen_that_neither_the_host_nor_a_network_uses() -> None:
    networks = store("172.17.0.0/16", "172.18.5.0/24")
    networks.default()

    made = networks.create("net")

    assert [each.text for each in subnets(networks.default())] == ["172.19.0.0/16"]
    assert [each.text for each in subnets(made)] == ["172.20.0.0/16"]


def test_no_subnet_is_left() -> None:
    with pytest.raises(Conflict, match="could not find an available, non-overlapping IPv4"):
        store("172.16.0.0/12", "192.168.0.0/16").create("net")


def test_a_subnet_may_lie_in_a_wider_route_but_not_take_one_in() -> None:
    networks = store("10.0.0.0/8", "10.9.1.0/24")

    networks.create("inner", subnets=[{"Subnet": "10.5.0.0/16"}])
    with pytest.raises(Conflict, match="Pool overlaps with other one on this address space"):
        networks.create("outer", subnets=[{"Subnet": "10.9.0.0/16"}])
    with pytest.raises(Conflict, match="Pool overlaps"):
        networks.create("again", subnets=[{"Subnet": "10.5.8.0/24"}])


def test_a_network_is_found_by_name_and_by_the_beginning_of_its_id() -> None:
    networks = store()
    made = networks.create("net")

    assert networks.find("net") == made
    assert networks.find(made["Id"][:12]) == made
    with pytest.raises(NotFound, match="network nowhere not found"):
        networks.find("nowhere")


@pytest.mark.parametrize(
    ("name", "error"),
    [("net", Conflict), ("bridge", AccessDenied), ("host", AccessDenied), ("a b", UsageError),
     ("../x", UsageError), ("", UsageError)],
)  # fmt: skip
def test_a_name_that_no_new_network_can_have(name: str, error: type[WherryError]) -> None:
    networks = store()
    networks.create("net")

    with pytest.raises(error):
        networks.create(name)


def test_ipv6_gets_a_subnet_of_its_own() -> None:
    made = store().create("net", ipv6=True)

    assert [each.version for each in subnets(made)] == [4, 6]
    assert subnets(made)[1].text.startswith("fd")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((["10.1"], [], [], {}), "invalid subnet 10.1: invalid CIDR block notation"),
        ((["10.1.0.0/33"], [], [], {}), "invalid CIDR block notation"),
        ((["10.1.0.0/16"], ["10.2.0.1"], [], {}), "no matching subnet for gateway 10.2.0.1"),
        ((["10.1.0.0/16"], ["x"], [], {}), "invalid gateway x"),
        ((["10.1.0.0/16"], [], ["10.2.0.0/24"], {}), "no matching subnet for range 10.2.0.0/24"),
        ((["10.1.0.0/16"], [], [], {"a": "10.2.0.1"}), "no matching subnet for aux-address"),
        ((["10.1.0.0/16", "10.1.2.0/24"], [], [], {}), "multiple overlapping subnet"),
        ((["10.1.0.0/16", "10.2.0.0/16"], ["10.1.0.1", "10.1.0.2"], [], {}), "multiple gateways"),
        ((["10.1.0.0/16"], ["10.1.0.1", "10.1.0.2"], [], {}), "must have a corresponding subnet"),
        (([], [], ["10.1.0.0/24"], {}), "every ip-range or gateway must have a corresponding"),
    ],
)
def test_what_is_said_about_subnets_has_to_fit(
    given: tuple[list[str], list[str], list[str], dict[str, str]], text: str
) -> None:
    with pytest.raises(UsageError, match=text):
        read_subnets(*given)


def test_addresses_go_round_and_come_back() -> None:
    network = store().create("net", subnets=[{"Subnet": "10.7.0.0/29"}])

    first = [lease(network, name) for name in "abc"]
    leases.release(network["Id"], "a")
    later = [lease(network, name) for name in "def"]

    assert first == ["10.7.0.2", "10.7.0.3", "10.7.0.4"]
    assert later == ["10.7.0.5", "10.7.0.6", "10.7.0.2"]
    with pytest.raises(Conflict, match="no available IPv4 addresses on this network's"):
        lease(network, "g")


def test_an_address_that_was_asked_for_is_checked() -> None:
    network = store().create("net", subnets=[{"Subnet": "10.7.0.0/24"}])

    assert lease(network, "a", "10.7.0.77") == "10.7.0.77"
    with pytest.raises(Conflict, match="Address already in use"):
        lease(network, "b", "10.7.0.77")
    with pytest.raises(Conflict, match="Address already in use"):
        lease(network, "b", "10.7.0.1")
    with pytest.raises(NotFound, match="no configured subnet or ip-range contain"):
        lease(network, "b", "10.8.0.1")
    with pytest.raises(UsageError, match=r"invalid address 10\.7\.0\.255"):
        lease(network, "b", "10.7.0.255")


def test_a_lease_without_its_container_is_none() -> None:
    network = store().create("net", subnets=[{"Subnet": "10.7.0.0/30"}])
    lease(network, "a")

    os.rmdir(paths.run_container("a"))

    assert leases.endpoints(network["Id"]) == {}
    assert lease(network, "b") == "10.7.0.2"


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [("10.0.0.7/24", "10.0.0.0/24", 0x0A0000FF), ("fd00::1/126", "fd00::/126", (0xFD << 120) + 3)],
)
def test_a_subnet_begins_where_its_prefix_does(text: str, first: str, last: int) -> None:
    subnet = read_subnet(text)

    assert subnet.text == first
    assert subnet.last == last
