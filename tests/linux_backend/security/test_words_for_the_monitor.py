"""Whoever reaches a monitor's socket can say anything: the container must not suffer from it."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE, as_root

if TYPE_CHECKING:
    from support.cli import Cli

_CONTROL = 3


def _say(directory: str, words: bytes, length: int) -> None:
    """Send a message, and wait until the monitor has answered it or hung up."""
    before = os.open(".", os.O_PATH)
    os.chdir(directory)  # a socket's path may have no more than 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("attach.sock")
            client.sendall(bytes((_CONTROL,)) + length.to_bytes(4, "big") + words)
            client.shutdown(socket.SHUT_WR)
            client.settimeout(60)
            while client.recv(4096):
                pass
    finally:
        os.fchdir(before)
        os.close(before)


@as_root
@pytest.mark.parametrize(
    "words",
    [
        b"[]",
        b'"word"',
        b"no JSON",
        b"\xff\xfe",
        b'{"op": "kill"}',
        b'{"op": "kill", "signal": "x"}',
        b'{"op": "kill", "signal": 99999}',
        b'{"op": "stop"}',
        b'{"op": "stop", "signal": 15, "timeout": "x"}',
        b'{"op": "resize", "rows": -1, "columns": 70000}',
        b'{"op": []}',
        b"[" * 100_000,
    ],
    ids=lambda words: words[:40].decode(errors="replace"),
)
@pytest.mark.parametrize("terminal", [(), ("-t",)], ids=["streams", "terminal"])
def test_nonsense_harms_nobody(
    wherry: Cli, wherry_root: str, busybox_image: str, words: bytes, terminal: tuple[str, ...]
) -> None:
    container = wherry("run", OFFLINE, "-d", *terminal, busybox_image, "sleep", "1000")
    directory = f"{wherry_root}/run/containers/{container.stdout.strip()}"

    _say(directory, words, len(words))

    assert wherry("ps", "--format", "{{.State}}").stdout == "running\n"


@as_root
def test_message_without_an_end_is_not_waited_for(
    wherry: Cli, wherry_root: str, busybox_image: str
) -> None:
    container = wherry("run", OFFLINE, "-d", busybox_image, "sleep", "1000")

    _say(f"{wherry_root}/run/containers/{container.stdout.strip()}", b"x" * 4096, 0xFFFFFFFF)

    assert wherry("ps", "--format", "{{.State}}").stdout == "running\n"
