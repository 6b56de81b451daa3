"""Moments are read and written as docker does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.errors import UsageError
from wherry.human import HOUR, MINUTE, SECOND
from wherry.times import NEVER, ago, format_local_time, format_time, parse_time, parse_timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator

MOMENT = 1_714_558_830 * SECOND  # 2024-05-01T10:20:30Z
NOW = 2_000_000_000 * SECOND


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not hasattr(time, "tzset"):
        pytest.skip("this system cannot change its zone for one process")
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0, "2024-05-01T10:20:30Z"),
        (500_000_000, "2024-05-01T10:20:30.5Z"),
        (1, "2024-05-01T10:20:30.000000001Z"),
    ],
)
def test_time_is_written_with_the_digits_that_it_needs(fraction: int, text: str) -> None:
    assert format_time(MOMENT + fraction) == text


def test_time_in_a_log_has_all_digits() -> None:
    assert format_time(MOMENT, fixed=True) == "2024-05-01T10:20:30.000000000Z"


@pytest.mark.usefixtures("in_berlin")
def test_time_in_a_table_is_local() -> None:
    assert format_local_time(MOMENT) == "2024-05-01 12:20:30 +0200 CEST"


@given(st.integers(min_value=0, max_value=4_000_000_000 * SECOND))
def test_written_time_reads_back(moment: int) -> None:
    assert parse_time(format_time(moment)) == moment
    assert parse_time(format_time(moment, fixed=True)) == moment


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-05-01T10:20:30Z", MOMENT),
        ("2024-05-01T12:20:30+02:00", MOMENT),
        ("2024-05-01T06:50:30.25-03:30", MOMENT + SECOND // 4),
        ("2024-05-01T10:20:30.123456789Z", MOMENT + 123_456_789),
        ("2024-02-29T00:00:00Z", 1_709_164_800 * SECOND),
        ("1970-01-01T00:00:00Z", 0),
        (NEVER, -62_135_596_800 * SECOND),
    ],
)
def test_time_with_a_zone_is_read(text: str, moment: int) -> None:
    assert parse_time(text) == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024-05-01",
        "2024-05-01T10:20:30",
        "2024-05-01T10:20Z",
        "2023-02-29T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-05-01T24:00:00Z",
        "2024-05-01T10:20:30.Z",
        "2024-05-01T10:20:30.1x2Z",
        "2024-05-01T10:20:30+0200",
        "2024-05-01 10:20:30+02:00",
        "2024-05-01T10:20:30Zulu-01",
        "٢٠٢٤-05-01T10:20:30Z",
    ],
)
def test_text_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="invalid time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("10m", NOW - 10 * MINUTE),
        ("1h30m", NOW - 90 * MINUTE),
        ("-1h", NOW + HOUR),
        ("0s", NOW),
        ("0", 0),
        ("1714558830", MOMENT),
        ("1714558830.000000005", MOMENT + 5),
        ("1714558830.5", MOMENT + SECOND // 2),
        ("2024-05-01T10:20:30Z", MOMENT),
        ("2024-05-01T10:20Z", MOMENT - 30 * SECOND),
        ("2024-05-01T10Z", MOMENT - 20 * MINUTE - 30 * SECOND),
        ("2024-05-01Z", 1_714_521_600 * SECOND),
        ("2024-05-01+02:00", 1_714_521_600 * SECOND - 2 * HOUR),
    ],
)
def test_since_and_until_take_times_seconds_and_durations(text: str, moment: int) -> None:
    assert parse_timestamp(text, NOW) == moment


@pytest.mark.usefixtures("in_berlin")
@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-05-01T12:20:30", MOMENT),
        ("2024-05-01T12:20:30.25", MOMENT + SECOND // 4),
        ("2024-05-01T12:20", MOMENT - 30 * SECOND),
        ("2024-05-01T12", MOMENT - 20 * MINUTE - 30 * SECOND),
        ("2024-05-01", 1_714_521_600 * SECOND - 2 * HOUR),
        ("2024-01-01", 1_704_067_200 * SECOND - HOUR),
    ],
)
def test_timestamp_without_a_zone_is_local(text: str, moment: int) -> None:
    assert parse_timestamp(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "10x", "2024-05", "2024-05-01T", "1.2.3"])
def test_timestamp_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="failed to parse value as time or duration"):
        parse_timestamp(text, NOW)


def test_how_long_ago_something_was() -> None:
    assert ago(NOW - 2 * HOUR, NOW) == "2 hours ago"
    assert ago(parse_time(NEVER), NOW) == "N/A"
