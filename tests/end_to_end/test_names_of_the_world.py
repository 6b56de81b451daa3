"""Names that are no container's: asked of the host's resolvers, as they are at that moment."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from support import name_server
from support.hosts import NEIGHBOUR, PrivateHost
from support.networks import IDLE
from support.settings import as_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.cli import Cli

    Serve = Callable[..., None]

pytestmark = as_root


@pytest.fixture
def resolv_conf(host: PrivateHost, tmp_path: Path) -> Path:
    """The host's resolv.conf, which goes with the host."""
    file = tmp_path / "resolv.conf"
    file.write_text(f"nameserver {NEIGHBOUR}\n")
    host.run("mount", "--bind", str(file), "/etc/resolv.conf")
    return file


@pytest.fixture
def serve(host: PrivateHost) -> Iterator[Serve]:
    """Start name servers at the neighbour's, or with `inside` on the host itself."""
    running = []

    def start(address: str, answer: str, *, inside: bool = False) -> None:
        begin = host.start if inside else host.start_outside
        server = begin("python3", str(name_server.__file__), address, answer)
        running.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == b"up\n"

    yield start
    for server in running:
        server.kill()
        server.communicate()


def test_a_change_of_the_hosts_resolvers_is_followed(
    wherry: Cli, host: PrivateHost, resolv_conf: Path, serve: Serve, busybox_image: str
) -> None:
    host.run_outside("ip", "address", "add", "10.200.0.3/24", "dev", "inside")
    serve(NEIGHBOUR, "9.9.9.1")
    serve("10.200.0.3", "9.9.9.2")
    serve("127.0.0.53", "9.9.9.3", inside=True)
    wherry("network", "create", "net")
    wherry("run", "-d", "--name", "box", "--network", "net", busybox_image, *IDLE)

    def found() -> str:
        lines = wherry("exec", "box", "nslookup", "far.example").lines
        return next(line for line in lines if line.startswith("Address: 9.")).partition(" ")[2]

    assert found() == "9.9.9.1"
    # Another network of the laptop's; a resolver that is gone, before one that is there;
    # systemd-resolved, whom only the host itself reaches.
    resolv_conf.write_text("nameserver 10.200.0.3\n")
    assert found() == "9.9.9.2"
    resolv_conf.write_text("nameserver 127.0.0.99\nnameserver 10.200.0.3\n")
    assert found() == "9.9.9.2"
    resolv_conf.write_text("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n")
    assert found() == "9.9.9.3"
    # The container's own file names the resolver at 127.0.0.11 all the time.
    assert wherry("exec", "box", "cat", "/etc/resolv.conf").lines[0] == "nameserver 127.0.0.11"


ASKING = """
import socket, struct
def question(kind):
    return b"\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\3far\\7example\\0\\0" + bytes([kind]) + b"\\0\\1"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(60)
    s.sendto(question(16), ("127.0.0.11", 53))
    print("truncated", s.recv(4096)[2] >> 1 & 1)
with socket.create_connection(("127.0.0.11", 53), 60) as s, s.makefile("rwb") as stream:
    for kind in (16, 1, 16):
        asked = question(kind)
        stream.write(struct.pack(">H", len(asked)) + asked)
    stream.flush()
    for _ in range(3):
        answer = stream.read(int.from_bytes(stream.read(2), "big"))
        print("whole", answer[6] << 8 | answer[7], len(answer))
"""


def test_a_long_answer_comes_whole_over_tcp(
    wherry: Cli, host: PrivateHost, resolv_conf: Path, serve: Serve, busybox_image: str
) -> None:
    serve(NEIGHBOUR, "9.9.9.1")
    wherry("network", "create", "net")
    wherry("run", "-d", "--name", "box", "--network", "net", busybox_image, *IDLE)
    pid = wherry("inspect", "-f", "{{.State.Pid}}", "box").stdout.strip()

    asked = subprocess.run(
        ["nsenter", "--target", pid, "--net", "python3", "-c", ASKING],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    long = f"whole 200 {12 + 17 + 200 * (12 + 251)}\n"
    assert asked.stdout in {
        "truncated 1\n" + long + "whole 1 45\n" + long,
        "truncated 1\n" + "whole 1 45\n" + long + long,
        "truncated 1\n" + long + long + "whole 1 45\n",
    }, asked.stdout + asked.stderr


def test_files_say_what_was_asked_for(
    wherry: Cli, host: PrivateHost, resolv_conf: Path, busybox_image: str
) -> None:
    resolv_conf.write_text("nameserver 127.0.0.1\nsearch corp.example\noptions ndots:2\n")
    wherry("network", "create", "net")

    def lines(*options: str) -> list[str]:
        return wherry("run", "--rm", *options, busybox_image, "cat", "/etc/resolv.conf").lines

    # Nobody reaches a resolver on the host's loopback, but the one that asks for the container.
    assert lines() == [
        "nameserver 8.8.8.8", "nameserver 8.8.4.4", "search corp.example", "options ndots:2",
    ]  # fmt: skip
    assert lines("--network", "net") == [
        "nameserver 127.0.0.11", "search corp.example", "options ndots:2",
    ]  # fmt: skip
    given = ("--dns-search", "a.b", "--dns-search", "c.d", "--dns-option", "timeout:1")
    assert lines("--network", "net", "--dns", "9.9.9.9", *given) == [
        "nameserver 127.0.0.11", "search a.b c.d", "options timeout:1 ndots:0",
    ]  # fmt: skip
    assert lines("--network", "host") == resolv_conf.read_text().splitlines()
    written = "echo nameserver 1.2.3.4 >/etc/resolv.conf && cat /etc/resolv.conf"
    mine = wherry("run", "--rm", "--network", "net", busybox_image, "sh", "-c", written)
    assert mine.stdout == "nameserver 1.2.3.4\n"
