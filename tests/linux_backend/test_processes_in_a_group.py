"""A process begins in its control group, also where the kernel does not fork it there."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from wherry.errors import KernelError
from wherry.forked import read_all
from wherry_linux import syscalls
from wherry_linux.cgroups import Cgroup, mount_point, own_path

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.linux


@pytest.fixture
def group() -> Iterator[Cgroup]:
    if mount_point() is None:
        pytest.skip("there are no control groups of version 2")
    group = Cgroup(f"/wherry-test-{os.getpid()}")
    group.make()
    yield group
    group.remove()


@pytest.fixture
def old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_directory: int) -> int:
        raise KernelError("cannot fork into a control group", errno.ENOSYS)

    monkeypatch.setattr(syscalls, "fork_into_cgroup", refuse)


def _place_of_child(group: Cgroup) -> str:
    reader, writer = os.pipe()
    child = group.start(lambda: os.write(writer, own_path(os.getpid()).encode()))
    os.close(writer)
    try:
        return read_all(reader).decode()
    finally:
        os.close(reader)
        os.waitpid(child, 0)


def test_a_process_is_forked_into_its_group(group: Cgroup) -> None:
    assert _place_of_child(group) == group.path


@pytest.mark.usefixtures("old_kernel")
def test_a_process_is_moved_into_its_group_before_it_begins(group: Cgroup) -> None:
    assert _place_of_child(group) == group.path


@pytest.mark.usefixtures("old_kernel")
def test_a_process_that_cannot_be_moved_does_not_begin(
    group: Cgroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_group: Cgroup, _pid: int) -> None:
        raise KernelError("no room", errno.EBUSY)

    monkeypatch.setattr(Cgroup, "add", full)
    reader, writer = os.pipe()
    with pytest.raises(KernelError, match="no room"):
        group.start(lambda: os.write(writer, b"begun"))

    os.close(writer)
    assert read_all(reader) == b""
    os.close(reader)
