"""Ports of this host: which are free, and which a process has."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from pathlib import Path


def listeners(pid: int) -> set[str]:
    """Where a process listens, or has bound, in the words of proc_net_tcp(5)."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed in the meantime
            inodes.add(os.readlink(f"/proc/{pid}/fd/{name}").removeprefix("socket:[")[:-1])
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and fields[3] in ("0A", "07"):
                found.add(fields[1])
    return found


def free_port(
    kind: socket.SocketKind = socket.SOCK_STREAM,
    family: socket.AddressFamily = socket.AF_INET,
    *,
    count: int = 1,
) -> int:
    """The first of `count` ports that nothing has, and that the kernel gives nobody by itself."""
    for first in random.sample(range(20000, 32000), 100):
        if all(_is_free(first + number, kind, family) for number in range(count)):
            return first
    raise AssertionError("no free port")


def _is_free(port: int, kind: socket.SocketKind, family: socket.AddressFamily) -> bool:
    with socket.socket(family, kind) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
