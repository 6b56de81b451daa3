"""When a machine is told of what is around its host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.certificates import Authority
from wherry_vm.machines import Machine, Settings
from wherry_vm.surroundings.telling import Surroundings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_whom_the_command_trusts_that_starts_a_machine_it_is_told_with_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERRY_ROOT", str(tmp_path / "world"))
    authority = Authority(tmp_path / "authority")
    said: list[dict[str, Any]] = []
    named = {str(authority.certificate): None}
    surroundings = Surroundings(Machine(name="m", settings=Settings()), said.append, named)

    try:
        surroundings.tell()
        surroundings.hear({"event": "adopted", "number": 1})
        surroundings.catch_up()
    finally:
        surroundings.close()

    assert [each["number"] for each in said] == [1]
    assert authority.certificate.read_text().strip() in said[0]["authorities"]
