"""Commands and their supervisor where there are no UNIX sockets: both prove who they are."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from wherry.files import write_json
from wherry_vm import link
from wherry_vm.link import prove

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = os.urandom(32)


@pytest.fixture
def supervise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """`supervise(serve)`: a directory whose supervisor, in a thread, does `serve(stream)`."""
    monkeypatch.setattr(link, "sockets", _Sockets())
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def start(serve: Callable[[socket.socket], None]) -> str:
        port = listener.getsockname()[1]
        write_json(str(tmp_path / "supervisor.json"), {"port": port, "key": KEY.hex()})

        def run() -> None:
            stream, _ = listener.accept()
            with stream:
                serve(stream)

        threads.append(threading.Thread(target=run))
        threads[0].start()
        return str(tmp_path)

    yield start
    for thread in threads:
        thread.join()
    listener.close()


class _Sockets:
    """The socket module of a Python without UNIX sockets."""

    def __getattr__(self, name: str) -> Any:
        if name == "AF_UNIX":
            raise AttributeError(name)
        return getattr(socket, name)


def test_who_knows_the_key_is_connected(supervise: Callable[..., str]) -> None:
    def serve(stream: socket.socket) -> None:
        prove(stream, KEY, b"supervisor", b"command")
        stream.sendall(b"hello")

    connected = link.connect(supervise(serve))

    assert connected is not None
    assert connected.receive() == b"hello"
    connected.close()


def test_a_server_that_does_not_know_the_key_is_not_the_supervisor(
    supervise: Callable[..., str],
) -> None:
    def serve(stream: socket.socket) -> None:
        with pytest.raises(OSError, match="key"):
            prove(stream, os.urandom(32), b"supervisor", b"command")

    assert link.connect(supervise(serve)) is None


def test_a_server_that_only_repeats_is_not_the_supervisor(supervise: Callable[..., str]) -> None:
    def serve(stream: socket.socket) -> None:
        while data := stream.recv(1000):
            stream.sendall(data)

    assert link.connect(supervise(serve)) is None


def test_without_a_supervisor_there_is_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "sockets", _Sockets())

    assert link.connect(str(tmp_path)) is None
