"""A server of datagrams in a container of a machine, and what it answers."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subprocess import Popen

    from support.cli import Cli

_ECHO = """
import socket
server = socket.socket(socket.AF_INET6 if ":" in "{listens}" else socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("{listens}", {port}))
while True:
    data, sender = server.recvfrom(65536)
    server.sendto(data * 2, sender)
"""


def start_echo(machine: Cli, container: str, listens: str, port: int) -> Popen[bytes]:
    """A server that says everything twice, until the container ends."""
    pid = machine("inspect", "--format", "{{.State.Pid}}", container).stdout.strip()
    # The image has no such program: one of the guest's becomes one of the container's.
    join = f"echo $$ >/sys/fs/cgroup$(sed s/^0::// /proc/{pid}/cgroup)/cgroup.procs"
    script = f'{join}; exec nsenter -t {pid} -n python3 -c "$0"'
    server = _ECHO.format(listens=listens, port=port)
    return machine.start("machine", "ssh", "default", "sh", "-c", script, server)


def echoed(host: str, port: int, data: bytes = b"x") -> bool:
    """Whether the server answers whoever hears nobody else, as most clients do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
        client.settimeout(2)
        client.connect((host, port))
        client.send(data)
        return client.recv(1 << 16) == data * 2
    return False
