"""What several end-to-end tests stand on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.hosts import private_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.cli import Cli
    from support.hosts import PrivateHost


@pytest.fixture
def host(wherry: Cli) -> Iterator[PrivateHost]:
    """A host of the test's own, on which the command runs."""
    with private_host(wherry) as host:
        yield host
