"""Rules about devices, as a control group is told them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wherry_linux.device_filter import assemble, evaluate

if TYPE_CHECKING:
    from wherry.oci.runtime_spec import LinuxDeviceCgroup

_NONE: LinuxDeviceCgroup = {"allow": False, "access": "rwm"}
_KVM: LinuxDeviceCgroup = {"allow": True, "type": "c", "major": 10, "minor": 232, "access": "rw"}


def test_rule_about_everything_forgets_those_before() -> None:
    assert evaluate([_NONE, _KVM, {"allow": True}]) == (True, {})


def test_null_is_always_allowed() -> None:
    everything, exceptions = evaluate([_NONE])

    assert not everything
    assert exceptions["c", 1, 3] == set("rwm")


def test_later_rule_takes_access_away_again() -> None:
    rule: LinuxDeviceCgroup = {**_KVM, "allow": False, "access": "w"}

    _, exceptions = evaluate([_NONE, _KVM, rule])

    assert exceptions["c", 10, 232] == {"r"}


def test_rules_about_one_device_add_up() -> None:
    _, exceptions = evaluate([_NONE, {**_KVM, "access": "r"}, {**_KVM, "access": "w"}])

    assert exceptions["c", 10, 232] == {"r", "w"}


@pytest.mark.parametrize(
    "rules", [[_NONE], [_NONE, _KVM], [{"allow": True}, {**_KVM, "allow": False}]]
)
def test_program_ends_with_an_answer(rules: list[LinuxDeviceCgroup]) -> None:
    program = assemble(*evaluate(rules))

    assert len(program) % 8 == 0
    assert program[-8] == 0x95  # exit
