"""Containers on networks: a server, a client, and where they are."""

from __future__ import annotations

import subprocess
import urllib.request
from typing import TYPE_CHECKING

from support.hosts import HOST
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.cli import Cli
    from support.hosts import PrivateHost

IDLE = ("sleep", "1000000")
SERVER = "mkdir -p /www && echo hello >/www/index.html && exec httpd -f -h /www -p 80"
FETCH = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 30"


def address(wherry: Cli, container: str, network: str = "bridge") -> str:
    template = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
    return wherry("inspect", "--format", template, container).stdout.strip()


def serve(wherry: Cli, *options: str, image: str = "busybox") -> None:
    """A container that answers on port 80, as soon as it does."""
    wherry("run", "-d", *options, image, "sh", "-c", SERVER)
    name = options[options.index("--name") + 1]
    listening = ("exec", name, "sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 | grep -q ':0050 '")
    wait_until(
        lambda: wherry(*listening, check=False).returncode == 0, Deadline(60, "httpd to listen")
    )


def ask_by_udp(wherry: Cli, host: PrivateHost, container: str, port: int) -> str:
    """What the neighbour of `host` hears at its `port`, which leads to 53/udp of a container.

    What answers there says whom it heard.
    """
    pid = wherry("inspect", "--format", "{{.State.Pid}}", container).stdout.strip()
    python = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    answering = (
        f"{python}s.bind(('', 53)); print('up', flush=True)\n"
        "while True: data, peer = s.recvfrom(99); s.sendto(data + peer[0].encode(), peer)"
    )
    server = subprocess.Popen(
        ["nsenter", "--target", pid, "--net", "python3", "-c", answering], stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    server.stdout.readline()
    asking = f"s.settimeout(60); s.sendto(b'ping ', ('{HOST}', {port})); print(s.recv(99))"
    try:
        return host.run_outside("python3", "-c", f"{python}{asking}")
    finally:
        server.kill()
        server.communicate()


def fetched(url: str) -> str:
    """The page at `url`; "" where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""
