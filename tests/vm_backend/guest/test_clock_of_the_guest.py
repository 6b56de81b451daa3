"""The guest's clock beside the host's, which it is told of by messages that take their time."""

from __future__ import annotations

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the guest is a Linux")


@pytest.mark.parametrize(
    ("late", "there", "back"),
    [(0, 0.1, 0.1), (0, 3, 0.1), (0, 0.1, 3), (3600, 0.1, 0.2), (-60, 2, 0), (1, 0.1, 0.1)],
)
def test_a_clock_is_set_by_what_the_messages_cannot_have_taken(
    late: float, there: float, back: float
) -> None:
    """`late` is how far the guest is behind; the messages take so long there and back."""
    from wherry_vm.guest.agent import lag_of

    seen = 1000.0
    told, now = seen + there + late, seen + there + back

    assert abs(lag_of(now, told, seen) - late) <= (there + back) / 2
    assert late or lag_of(now, told, seen) == 0
