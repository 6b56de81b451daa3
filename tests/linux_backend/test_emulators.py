"""Which emulators a container can use: those that need nothing of the host's."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from support.requirements import need_tool
from wherry.image.platform import host_platform
from wherry.kernel import kernel_version
from wherry_linux.emulators import emulate, runs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.linux


def test_an_emulator_needs_no_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busybox = need_tool("busybox")
    monkeypatch.setenv("PATH", f"{tmp_path}/one:{tmp_path}/two")
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
    assert emulate("s390x") is None
    assert not runs("s390x")
    shutil.copy("/bin/ls", tmp_path / "one" / "qemu-s390x")
    assert emulate("s390x") is None
    (tmp_path / "one" / "qemu-s390x-static").write_text("#!/bin/sh\n")
    (tmp_path / "one" / "qemu-s390x-static").chmod(0o755)
    assert emulate("s390x") is None
    shutil.copy(busybox, tmp_path / "two" / "qemu-s390x")
    assert emulate("s390x") is not None
    if kernel_version() >= (6, 7):
        assert runs("s390x")


def test_nothing_emulates_a_processor_that_nobody_knows() -> None:
    assert emulate("ia64") is None
    assert not runs("ia64")


def test_a_processor_runs_its_own_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    assert runs(host_platform().architecture)
