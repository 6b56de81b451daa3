"""What is around the host is around its machine, as it changes: names, proxies, authorities."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from support.busybox import busybox_archive
from support.certificates import Authority
from support.machines import BOOT
from support.proxy import TunnelProxy
from support.registry import RegistryServer, make_image
from support.requirements import need_tool
from support.resolver import NameServer
from support.settings import OFFLINE
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.cli import Cli
    from support.world import World

pytestmark = [pytest.mark.vm, pytest.mark.network, pytest.mark.timeout(600)]

NAME = "only.the-host.knows"
HTTPS = "registry.example:443"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def proxy(authority: Authority) -> Iterator[TunnelProxy]:
    """What leads to a registry whose name nobody knows, with a certificate of its own kind."""
    need_tool("docker-registry")
    certificate = authority.issue("registry", "registry.example")
    with RegistryServer(certificate=certificate) as registry, TunnelProxy(registry.port) as proxy:
        registry.put_image("one", "latest", make_image({"file": b"content"}))
        yield proxy


def pull(machine: Cli, proxy: TunnelProxy, **variables: str) -> str:
    """How it ends, in a word or in what it says."""
    result = machine(
        "pull", "--quiet", f"{HTTPS}/one", check=False, timeout=120,
        env={"HTTPS_PROXY": proxy.url, "NO_PROXY": "", "no_proxy": "", **variables},
    )  # fmt: skip
    return result.stderr or "pulled"


def test_a_registry_is_trusted_when_the_machine_is_told_so(
    machine: Cli, authority: Authority, proxy: TunnelProxy
) -> None:
    before = pull(machine, proxy)
    said = machine("machine", "set", "--ca", str(authority.certificate))
    then = pull(machine, proxy)
    machine("machine", "set", "--ca", "")
    after = pull(machine, proxy)

    assert "certificate" in before
    assert said.stderr == ""
    assert then == "pulled"
    assert "certificate" in after
    assert set(proxy.asked) == {HTTPS}


def test_whom_a_command_trusts_its_machine_does(
    machine: Cli, authority: Authority, proxy: TunnelProxy
) -> None:
    assert pull(machine, proxy, SSL_CERT_FILE=str(authority.certificate)) == "pulled"


def test_certificates_of_a_registry_are_the_hosts(
    machine: Cli, authority: Authority, proxy: TunnelProxy, tmp_path: Path
) -> None:
    place = tmp_path / "config" / "containers" / "certs.d" / HTTPS
    place.mkdir(parents=True)
    (place / "ca.crt").write_bytes(authority.certificate.read_bytes())

    assert pull(machine, proxy, XDG_CONFIG_HOME=str(tmp_path / "config")) == "pulled"


def test_a_container_has_the_proxies_that_docker_gives_it(machine: Cli, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "x"}}}'
    )
    result = machine(
        "run", "--rm", OFFLINE, "-e", "HTTP_PROXY", "-e", "https_proxy=mine", "busybox", "env",
        env={"DOCKER_CONFIG": str(tmp_path), "HTTP_PROXY": "http://127.0.0.1:2"},
    )  # fmt: skip

    found = {line for line in result.lines if "proxy" in line.lower()}
    assert found == {
        "HTTP_PROXY=http://127.0.0.1:2", "http_proxy=http://p:1", "https_proxy=mine",
        "NO_PROXY=x", "no_proxy=x",
    }  # fmt: skip


def test_names_are_those_of_the_host_as_it_changes(own_world: World, tmp_path: Path) -> None:
    """The host's resolver is on its loopback, where no guest could ask it."""
    if os.geteuid():
        pytest.skip("needs root, to have a resolv.conf of its own")
    here = tmp_path / "resolv.conf"
    wherry = with_resolv_conf(own_world.wherry, here)
    number = os.getpid()
    places = [(f"127.{number >> 16}.{number >> 8 & 255}.{number & 255 | 1}", 53)]
    places.append((f"127.255.{number >> 8 & 255}.{number & 255 | 1}", 53))
    with NameServer("192.0.2.1", places[0]), NameServer("192.0.2.2", places[1]):
        here.write_text(f"nameserver {places[0][0]}\nsearch one.example\n")
        wherry("load", input=busybox_archive(), timeout=BOOT)
        wherry("run", "-d", "--name", "box", "busybox", "sleep", "1000", timeout=120)
        wait_until(lambda: looked_up(wherry) == "192.0.2.1", Deadline(60, "the first answer"))

        here.write_text(f"nameserver {places[1][0]}\nsearch two.example\n")
        wait_until(lambda: looked_up(wherry) == "192.0.2.2", Deadline(60, "the second answer"))
        searched = wherry("run", "--rm", "busybox", "cat", "/etc/resolv.conf", timeout=120)

    assert "search two.example" in searched.lines


def looked_up(wherry: Cli) -> str:
    """What the container is answered."""
    result = wherry("exec", "box", "nslookup", NAME, check=False, timeout=120)
    found = [line.split()[-1] for line in result.lines if line.startswith("Address")]
    return found[-1] if result.returncode == 0 else result.stdout


def with_resolv_conf(wherry: Cli, path: Path) -> Cli:
    """The command on a host whose /etc/resolv.conf is the file at `path`."""
    path.write_text("")
    script = f'mount --bind {shlex.quote(str(path))} /etc/resolv.conf && exec "$@"'
    command = ("unshare", "--mount", "sh", "-c", script, "sh", *wherry.account.command)
    wherry.account = replace(wherry.account, command=command)
    return wherry
