"""The same commands said to docker, on a host of the test's own; and its firewall beside ours."""

from __future__ import annotations

import json
import re
import shlex
import time
from typing import TYPE_CHECKING

import pytest

from support.busybox import busybox_archive
from support.docker import Docker
from support.hosts import HOST, NEIGHBOUR, PrivateHost
from support.settings import as_root
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.cli import Cli

pytestmark = as_root


@pytest.fixture
def neighbour(host: PrivateHost, tmp_path: Path) -> Iterator[Docker]:
    """docker on the host where wherry is."""
    yield from _docker(host, tmp_path)


@pytest.fixture
def docker(host: PrivateHost, tmp_path: Path) -> Iterator[Docker]:
    """docker on a host of its own."""
    other = PrivateHost()
    yield from _docker(other, tmp_path)
    other.close()


def _docker(host: PrivateHost, directory: Path) -> Iterator[Docker]:
    """It finds forwarding switched off, and so drops what others have forwarded."""
    host.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=0")
    docker = Docker(enter=host.enter)
    archive = directory / "busybox.tar"
    archive.write_bytes(busybox_archive())
    docker("load", "--input", str(archive))
    yield docker
    docker.close()


# In this order, to both: what one makes the next ones find.
COMMANDS = """
network ls
network create net1
network create net1
network create --subnet 10.91.0.0/24 --gateway 10.91.0.1 --label a=b net2
network create --subnet 10.92.0.0/24 --gateway 10.93.0.1 net3
network create --subnet 10.92.0.0/24 --ip-range 10.93.0.0/25 net3
network create --gateway 1.2.3.4 net3
network create --ip-range 10.1.0.0/24 net3
network create --aux-address host=10.95.0.5 --subnet 10.95.0.0/24 net10
network create host
network create default
network create --driver host net3
network create
network create net3 net4
network ls --format '{{.Name}} {{.Driver}} {{.Scope}} {{.Internal}} {{.Labels}}'
network ls --filter dangling=true --format '{{.Name}}'
network ls --filter type=custom --format '{{.Name}}'
network ls --filter type=foo
network ls --filter name=net1 --format '{{.Name}}'
network inspect -f '{{.Name}} {{.Driver}} {{.Options}} {{json .IPAM}}' net2
network inspect nowhere
network inspect -f '{{.Driver}}' net1 net2
network rm nowhere
network rm -f nowhere
network rm net1 nowhere
network rm bridge
network rm
network create --subnet 10.96.0.0/24 web
run -d --name aa --network web --network-alias al busybox sleep 1000
run -d --name bb --expose 99 --expose 7-9/udp -p 8080:80 -p 127.0.0.1:8081:81 -p 85:85 busybox sleep 1000
create --name cc -p 8099:90 busybox sleep 1000
ps -a --format '{{.Names}} {{.Ports}}'
ps -a --filter network=web --format '{{.Names}}'
inspect -f '{{json .NetworkSettings.Ports}}' aa bb cc
port bb
port bb 80
port bb 90
port cc
port nobody
network connect web bb
ps -a --filter network=web --format '{{.Names}}'
network connect web bb
network connect web nobody
network connect nowhere bb
network connect host bb
network connect none bb
network connect --ip 10.96.0.2 web cc
start cc
network disconnect web nobody
network disconnect -f web nobody
network disconnect nowhere bb
network inspect -f '{{len .Containers}}{{range .Containers}} /24{{end}}' web
run --rm --network nowhere busybox true
run --rm --network web --ip 10.96.0.2 busybox true
run --rm --ip 172.17.0.9 busybox true
run --rm --network container:nobody busybox true
run --rm --network container:aa -p 80:80 busybox true
run --rm --network container:aa --hostname foo busybox true
run --rm --network container:aa --dns 1.1.1.1 busybox true
run --rm --network container:aa --add-host a:1.1.1.1 busybox true
run --rm --network container:aa --network-alias x busybox true
run --rm --network host -p 80:80 busybox true
run --rm --network web --network none busybox true
run --rm --network bridge --network-alias x busybox true
run --rm --network name=web,foo=x busybox true
run --rm --link aa busybox true
run --rm --link nobody busybox true
run --rm --mac-address zz busybox true
run --rm -p 80:80:80:80 busybox true
run --rm -p 99999:80 busybox true
run --rm -p 80/foo busybox true
run --rm -p a:b busybox true
run --rm -p 8000-8001:80-82 busybox true
run --rm -p 8005-8001:80 busybox true
run --rm -p : busybox true
run --rm --expose 80:90 busybox true
run --rm --dns foo busybox true
run --rm --add-host foo busybox true
run --rm --add-host foo:bar busybox true
run --rm --dns 1.1.1.1 --dns-search . busybox cat /etc/resolv.conf
run --rm --network web busybox cat /etc/resolv.conf
run --rm busybox sysctl net.ipv4.ip_unprivileged_port_start net.ipv4.ping_group_range
stop -t 0 aa bb
inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' aa
rm -f aa bb cc
network rm web
"""  # noqa: E501

_PREFIXES = re.compile(r"^(wherry|docker|Error response from daemon|Error|WARNING): ")


def test_words_and_exit_codes_are_dockers(wherry: Cli, docker: Docker, busybox_image: str) -> None:
    different = []
    for line in COMMANDS.strip().splitlines():
        argv = shlex.split(line)
        ours, theirs = wherry(*argv, check=False), docker(*argv, check=False)
        said = [
            (each.returncode, _plain(each.stdout), _complaint(each.stderr))
            for each in (theirs, ours)
        ]
        if said[0] != said[1]:
            different.append(f"{line}\n  docker {said[0]}\n  wherry {said[1]}")
    assert not different, "\n".join(different)


def _plain(text: str) -> str:
    """What was printed, less what is another's each time: ids, and how a table is padded."""
    return re.sub(" +", " ", re.sub(r"\b([0-9a-f]{64}|[0-9a-f]{12})\b", "ID", text)).strip()


def _complaint(text: str) -> str:
    """What is wrong: the lines that follow are the one's hint, and the other's advice."""
    said = next(iter(text.splitlines()), "")
    for _ in range(3):
        said = _PREFIXES.sub("", said)
    return _plain(said.replace("wherry", "docker"))


def test_events_of_networks_are_dockers(wherry: Cli, docker: Docker, busybox_image: str) -> None:
    commands = """
    network create evn
    run -d --name ev --network evn busybox sleep 1000
    network connect bridge ev
    network disconnect bridge ev
    rm -f ev
    network rm evn
    network create unused
    network prune -f
    """
    told = []
    for said in (docker, wherry):
        since = said("info", "--format", "{{.SystemTime}}").stdout.strip()
        for line in commands.strip().splitlines():
            said(*line.split())
        events = said("events", "--since", since, "--until", f"{time.time() + 1:.3f}",
                      "--format", "{{json .}}")  # fmt: skip
        found = [json.loads(line) for line in events.stdout.splitlines()]
        told.append(
            [
                (each["Action"], each["Actor"]["Attributes"].get("name"), *_keys(each))
                for each in found
                if each["Type"] == "network"
            ]
        )
    # Some versions of docker tell twice of what is taken off a network while it runs.
    once = [each for at, each in enumerate(told[0]) if at == 0 or each != told[0][at - 1]]
    assert told[1] == once


def _keys(event: dict[str, dict[str, dict[str, str]]]) -> list[str]:
    return sorted(event["Actor"]["Attributes"])


def test_dockers_firewall_is_left_alone_and_can_be_told_of_us(
    wherry: Cli, host: PrivateHost, neighbour: Docker, busybox_image: str
) -> None:
    neighbour("run", "-d", "--name", "theirs", "-p", "9090:80", "busybox", "sleep", "1000")
    before = _rules(host)

    wherry("network", "create", "one")
    script = "mkdir /w && echo hello >/w/index.html && exec httpd -f -h /w -p 80"
    run = ("run", "-d", "--name", "ours", "--network", "one", "-p", "8080:80", busybox_image)
    wherry(*run, "sh", "-c", script)

    # docker's policy for FORWARD is DROP: doctor says so, and how to be let through.
    ping = ("exec", "ours", "ping", "-c", "1", "-W", "2", NEIGHBOUR)
    fetch = ("curl", "-s", "-m", "2", f"http://{HOST}:8080")
    assert wherry(*ping, check=False).returncode == 1
    assert host.run_outside(*fetch, check=False) == ""
    assert _rules(host) == before
    finding = _forwarding(wherry)
    assert finding["Text"].startswith("docker drops what is forwarded")
    host.run("sh", "-ec", finding["Mend"].replace("sudo ", ""))
    assert wherry(*ping).returncode == 0
    wait_until(
        lambda: host.run_outside(*fetch, check=False) == "hello\n", Deadline(60, "an answer")
    )
    assert _forwarding(wherry)["Verdict"] == "ok"

    # What the exception lets through is ours to judge: not what is not published.
    own = wherry("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "ours").stdout.strip()
    host.run_outside("ip", "route", "add", own, "via", HOST)
    assert host.run_outside("curl", "-s", "-m", "1", f"http://{own}", check=False) == ""
    wherry("rm", "-f", "ours")
    wherry("network", "rm", "one")
    assert [line for line in _rules(host) if "wherry" not in line] == before


def _forwarding(wherry: Cli) -> dict[str, str]:
    found = json.loads(wherry("doctor", "--format", "json", check=False).stdout)
    finding: dict[str, str] = next(each for each in found if each["Subject"] == "forwarding")
    return finding


def _rules(host: PrivateHost) -> list[str]:
    """All rules but those of wherry's table, without what they have counted."""
    listed = host.run("nft", "list", "ruleset")
    listed = re.sub(r"(?ms)^table inet wherry \{.*?^\}\n", "", listed)
    return re.sub(r"packets \d+ bytes \d+", "", listed).splitlines()
