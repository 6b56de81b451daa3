"""Which accelerators are tried, and what is said of those that are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wherry_vm.qemu import accelerator
from wherry_vm.qemu.accelerator import candidates, describe
from wherry_vm.qemu.host import Host

if TYPE_CHECKING:
    from pathlib import Path

HOST = Host(system="linux", architecture="x86_64", flags=frozenset({"vmx"}))


@pytest.fixture(autouse=True)
def _no_wishes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the environment nor this machine's devices decide."""
    for name in ("WHERRY_ACCEL", "WHERRY_TRUST_KVM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(accelerator, "KVM", str(tmp_path / "kvm"))
    monkeypatch.setattr(accelerator, "PVM", str(tmp_path / "kvm_pvm"))


def test_kvm_that_is_pvm_is_not_tried(tmp_path: Path) -> None:
    (tmp_path / "kvm_pvm").mkdir()
    (tmp_path / "kvm").touch()

    names, refusals = candidates(HOST)

    assert names == ["tcg"]
    assert "PVM" in describe(refusals)


def test_without_kvm_the_reason_is_the_processors(tmp_path: Path) -> None:
    names, refusals = candidates(Host(system="linux", architecture="x86_64"))

    assert names == ["tcg"]
    assert "neither vmx nor svm" in refusals[0].reason


def test_a_device_that_is_not_kvm_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "kvm").touch()

    names, refusals = candidates(HOST)

    assert names == ["tcg"]
    assert "another version" in refusals[0].reason


@pytest.mark.parametrize(
    ("system", "word"), [("darwin", "Hypervisor.framework"), ("win32", "WinHvPlatform")]
)
def test_what_other_systems_lack_is_said(system: str, word: str) -> None:
    names, refusals = candidates(Host(system=system, architecture="x86_64"))

    assert names == ["tcg"]
    assert word in refusals[0].reason


def test_the_environment_can_insist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERRY_ACCEL", "kvm")

    assert candidates(HOST) == (["kvm"], [])
