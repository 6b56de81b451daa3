"""Containers on networks: a server, a client, and where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from support.cli import Cli

IDLE = ("sleep", "1000000")
SERVER = "mkdir -p /www && echo hello >/www/index.html && exec httpd -f -h /www -p 80"
FETCH = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5"


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
