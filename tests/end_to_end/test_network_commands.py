"""`wherry network` in docker's words: what it prints, and what it says of bad input."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.cli import Cli
    from support.outside import Outside

IDLE = ("sleep", "1000000")


def test_networks_are_listed_by_name(wherry: Cli) -> None:
    made = wherry("network", "create", "--label", "a=b", "net").stdout.strip()

    lines = wherry("network", "ls").lines
    custom = wherry("network", "ls", "--filter", "type=custom", "--format", "{{.ID}} {{.Labels}}")

    assert [line.split() for line in lines[:2]] == [
        ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"],
        [lines[1].split()[0], "bridge", "bridge", "local"],
    ]
    assert [line.split()[1:] for line in lines[2:]] == [
        ["host", "host", "local"],
        ["net", "bridge", "local"],
        ["none", "null", "local"],
    ]
    assert custom.stdout == f"{made[:12]} a=b\n"


def test_inspect_tells_what_was_said_and_who_is_on_it(wherry: Cli, busybox_image: str) -> None:
    options = ("--subnet", "10.78.0.0/24", "--gateway", "10.78.0.9", "--internal")
    wherry("network", "create", *options, "net")
    box = wherry("run", "-d", "--name", "box", "--network", "net", busybox_image, *IDLE)

    shown = json.loads(wherry("network", "inspect", "net").stdout)[0]

    assert shown["IPAM"]["Config"] == [{"Subnet": "10.78.0.0/24", "Gateway": "10.78.0.9"}]
    assert shown["Internal"] is True
    assert {name: each["Name"] for name, each in shown["Containers"].items()} == {
        box.stdout.strip(): "box"
    }
    assert shown["Containers"][box.stdout.strip()]["IPv4Address"] == "10.78.0.1/24"


def test_network_in_use_stays(wherry: Cli, busybox_image: str) -> None:
    wherry("network", "create", "--internal", "net")
    wherry("run", "-d", "--name", "box", "--network", "net", busybox_image, *IDLE)

    result = wherry("network", "rm", "net", check=False)

    assert result.returncode == 1
    assert result.stderr.startswith(
        'wherry: error while removing network: network net has active endpoints (name:"box" id:"'
    )
    wherry("rm", "-f", "box")
    assert wherry("network", "rm", "net").stdout == "net\n"


def test_prune_removes_what_no_container_uses(wherry: Cli, busybox_image: str) -> None:
    for name in ("used", "unused"):
        wherry("network", "create", name)
    wherry("create", "--network", "used", busybox_image)

    assert wherry("network", "prune", "-f").stdout == "Deleted Networks:\nunused\n\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("create", "--driver", "overlay", "x"), "could not find plugin overlay"),
        (("create", "--subnet", "10.1", "x"), "invalid subnet 10.1: invalid CIDR block notation"),
        (("create", "bridge"), "operation is not permitted on predefined bridge network"),
        (("rm", "bridge"), "bridge is a pre-defined network and cannot be removed"),
        (("rm", "nowhere"), "network nowhere not found"),
        (("inspect", "nowhere"), "network nowhere not found"),
        (("connect", "nowhere", "box"), "network nowhere not found"),
        (("connect", "net", "nobody"), "No such container: nobody"),
        (("connect", "net", "box"), "endpoint with name box already exists in network net"),
        (("disconnect", "bridge", "box"), "is not connected to network bridge"),
    ],
)
def test_bad_input_is_one_line(
    wherry: Cli, busybox_image: str, argv: tuple[str, ...], said: str
) -> None:
    wherry("network", "create", "net")
    wherry("create", "--name", "box", "--network", "net", busybox_image)

    result = wherry("network", *argv, check=False)

    assert result.returncode == 1
    assert said in result.stderr.splitlines()[0]
    assert wherry("network", "ls", "-q", "--filter", "type=custom").stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--network", "nowhere"), "network nowhere not found"),
        (("--ip", "172.17.0.9"), "user specified IP address is supported on user defined"),
        (("--network", "net", "--ip", "10.9.9.9"), "no configured subnet or ip-range contain"),
        (("--network", "net", "--ip", "10.78.0.1"), "Address already in use"),
    ],
)
def test_container_that_cannot_be_connected_leaves_nothing(
    wherry: Cli, busybox_image: str, options: tuple[str, ...], said: str
) -> None:
    wherry("network", "create", "--internal", "--subnet", "10.78.0.0/24", "net")

    result = wherry("run", "--rm", *options, busybox_image, "true", check=False)

    assert result.returncode == 125
    assert said in result.stderr.splitlines()[0]
    assert wherry("ps", "-aq").stdout == ""
    assert json.loads(wherry("network", "inspect", "net").stdout)[0]["Containers"] == {}


def test_record_that_is_damaged_can_be_given_up(wherry: Cli, outside: Outside) -> None:
    wherry("network", "ls")
    outside("sh", "-c", f"echo '{{' >{outside.data}/networks/net.json")

    refused = wherry("network", "rm", "net", check=False)

    assert refused.returncode == 1
    assert refused.stderr.endswith("to give the network up: wherry network rm -f net\n")
    assert wherry("network", "rm", "-f", "net").stdout == "net\n"
    assert wherry("network", "rm", "-f", "net").stdout == ""


def test_networks_are_in_the_order_of_their_numbers(wherry: Cli) -> None:
    for name in ("net10", "net9", "net1"):
        wherry("network", "create", name)

    listed = wherry("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}")

    assert listed.lines == ["net1", "net9", "net10"]
