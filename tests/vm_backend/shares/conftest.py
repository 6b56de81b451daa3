"""A directory that is shared, and clients of its server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.sftp import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "shared"
    directory.mkdir()
    return directory


@pytest.fixture
def connect(root: Path, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """`connect(readonly=…)`: a client of a server of its own."""
    clients = []

    def start(**options: bool) -> Client:
        clients.append(Client(root, tmp_path / "owners.db", **options))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Callable[..., Client]) -> Client:
    return connect()
