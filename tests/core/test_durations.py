"""A duration that is written reads back to the nanosecond."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.human import HOUR, MINUTE, SECOND, format_duration
from wherry.words import read_duration


@given(st.integers(min_value=-(2**63), max_value=2**63))
def test_written_duration_reads_back(duration: int) -> None:
    assert read_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("0", 0),
        ("1h30m", 90 * MINUTE),
        ("100ms", SECOND // 10),
        ("2.3s", 2_300_000_000),
        (".5h", HOUR // 2),
        ("1.h", HOUR),
        ("-1.5s", -1_500_000_000),
        ("+1s", SECOND),
        ("3us", 3000),
        ("3µs", 3000),
        ("1h0m0.000000001s", HOUR + 1),
    ],
)
def test_duration_is_exact(text: str, duration: int) -> None:
    assert read_duration(text) == duration


@pytest.mark.parametrize("text", ["", "-", "1", "-1", "s", ".s", "1x", "1h30", "1.2.3s", "1 h"])
def test_text_that_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        read_duration(text)
