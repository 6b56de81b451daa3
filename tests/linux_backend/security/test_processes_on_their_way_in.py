"""A process that enters a container comes from the host: who is inside must not look into it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.settings import OFFLINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.cli import Cli

# With SYS_PTRACE a container's root may look into whatever has no more than it has.
_SPY = (
    "while :; do cat /proc/[2-9]*/root{0} /proc/1?*/root{0} >> /files;"
    " for p in /proc/[2-9]* /proc/1?*; do tr '\\\\0' ' ' < $p/cmdline; echo; done >> /words;"
    " done 2> /dev/null"
)


@pytest.fixture
def found(wherry: Cli, busybox_image: str, host_dir: str) -> Iterator[Callable[[], str]]:
    """A container named `spy`, and what it has seen."""
    secret = Path(host_dir) / "secret"
    secret.write_text("what the host knows\n")
    secret.chmod(0o600)
    script = _SPY.format(secret)
    wherry(
        "run", OFFLINE, "-d", "--name", "spy", "--cap-add", "SYS_PTRACE",
        busybox_image, "sh", "-c", script,
    )  # fmt: skip
    yield lambda: wherry("exec", "spy", "sort", "-u", "/files", "/words").stdout
    wherry("rm", "-f", "spy")


def test_nothing_is_seen_of_whoever_shares_the_process_ids(
    wherry: Cli, busybox_image: str, found: Callable[[], str]
) -> None:
    options = ("--pid", "container:spy", "-e", "PASSWORD=hunter2")
    for _ in range(10):
        wherry("run", OFFLINE, "--rm", *options, busybox_image, "true")

    assert "what the host knows" not in found()
    assert "hunter2" not in found()


def test_nothing_is_seen_of_exec(wherry: Cli, found: Callable[[], str]) -> None:
    for _ in range(10):
        wherry("exec", "-e", "PASSWORD=hunter2", "spy", "true")

    assert "what the host knows" not in found()
    assert "hunter2" not in found()
