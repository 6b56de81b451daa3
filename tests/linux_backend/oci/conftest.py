"""A runtime for each test; nothing may be left of its containers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.oci import Oci
from support.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


@pytest.fixture
def oci(tmp_path: Path) -> Iterator[Oci]:
    """A runtime; nothing may be left of its containers."""
    before = _mounts()
    runtime = Oci(tmp_path)
    yield runtime
    for container_id in runtime("list", "-q").stdout.split():
        runtime("delete", "--force", container_id)
    assert not list(runtime.state.glob("*"))
    assert [line for line in _mounts() if str(tmp_path) in line] == []
    # Others mount as well, for a while.
    wait_until(lambda: len(_mounts()) <= len(before) + 8, Deadline(60, "no more mounts"))


@pytest.fixture
def mapped(oci: Oci) -> Callable[[], None]:
    """Give the container a user namespace that maps every id to itself."""

    def apply() -> None:
        oci.spec["linux"]["namespaces"].append({"type": "user"})
        whole = [{"containerID": 0, "hostID": 0, "size": 4294967295}]
        oci.spec["linux"]["uidMappings"] = oci.spec["linux"]["gidMappings"] = whole

    return apply
