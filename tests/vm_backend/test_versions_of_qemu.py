"""Which QEMU is found, and what is said where it is none that works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wherry.errors import MachineError, NotFound
from wherry_vm.qemu.binary import find_qemu
from wherry_vm.qemu.host import Host

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LINUX = Host(system="linux", architecture="x86_64")

pytestmark = pytest.mark.skipif("sys.platform == 'win32'", reason="a script stands in for QEMU")


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`qemu("exit 1")`: a program of that name that does so, and none beside it."""
    monkeypatch.setenv("PATH", f"{tmp_path}")
    monkeypatch.delenv("WHERRY_QEMU", raising=False)

    def make(script: str) -> None:
        path = tmp_path / "qemu-system-x86_64"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return make


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", (7, 2, 22)),
        ("QEMU emulator version 11.0.0", (11, 0, 0)),
        ("QEMU emulator version 10.1 (v10.1)", (10, 1, 0)),
    ],
)
def test_version_is_read(
    qemu: Callable[[str], None], said: str, version: tuple[int, int, int]
) -> None:
    qemu(f"echo '{said}'")

    assert find_qemu(LINUX).version == version


@pytest.mark.usefixtures("qemu")
@pytest.mark.parametrize(
    ("system", "hint"), [("linux", "apt-get"), ("darwin", "brew"), ("win32", "winget")]
)
def test_where_there_is_none_the_line_that_installs_it_is_said(system: str, hint: str) -> None:
    with pytest.raises(NotFound) as caught:
        find_qemu(Host(system=system, architecture="x86_64"))

    assert hint in str(caught.value.hint)


def test_one_that_is_too_old_is_refused(qemu: Callable[[str], None]) -> None:
    qemu("echo 'QEMU emulator version 6.2.0'")

    with pytest.raises(MachineError, match=r"6\.2\.0, which is too old: 7\.0\.0"):
        find_qemu(LINUX)


@pytest.mark.parametrize("script", ["exit 1", "echo nothing", "echo version", "exec 2>&-; exit 3"])
def test_one_that_does_not_work_is_refused(qemu: Callable[[str], None], script: str) -> None:
    qemu(script)

    with pytest.raises(MachineError, match="does not say which version"):
        find_qemu(LINUX)
