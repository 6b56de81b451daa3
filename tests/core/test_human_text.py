"""Sizes, durations and texts read as docker shows them."""

from __future__ import annotations

import pytest

from wherry.human import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    binary_size,
    ellipsis,
    format_duration,
    human_duration,
    human_size,
    quote,
)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1093, "1.093kB"),
        (1_093_484, "1.093MB"),
        (109_999_999, "110MB"),
        (2_746_000_000, "2.746GB"),
        (999_999, "1MB"),
        (10**24, "1YB"),
        (10**28, "10000YB"),
    ],
)
def test_size_has_four_digits_in_decimal_units(size: int, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("size", "text"), [(1093, "1.09kB"), (7_797_856, "7.8MB"), (109_999_999, "110MB")]
)
def test_size_in_a_table_has_three_digits(size: int, text: str) -> None:
    assert human_size(size, 3) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1536 * 1024**2, "1.5GiB"),
        (7_879_000_000, "7.338GiB"),
        (1024**2 - 1, "1MiB"),
    ],
)
def test_memory_is_shown_in_binary_units(size: int, text: str) -> None:
    assert binary_size(size) == text


def test_size_of_a_thousand_and_some_kibibytes_has_no_exponent() -> None:
    assert binary_size(1010 * 1024, 3) == "1010KiB"


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (-SECOND, "Less than a second"),
        (SECOND - 1, "Less than a second"),
        (SECOND, "1 second"),
        (59 * SECOND, "59 seconds"),
        (MINUTE, "About a minute"),
        (2 * MINUTE - 1, "About a minute"),
        (2 * MINUTE, "2 minutes"),
        (HOUR - 1, "59 minutes"),
        (HOUR, "About an hour"),
        (89 * MINUTE, "About an hour"),
        (90 * MINUTE, "2 hours"),
        (47 * HOUR, "47 hours"),
        (2 * DAY, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
        (3 * 365 * DAY, "3 years"),
    ],
)
def test_duration_is_told_in_words(duration: int, text: str) -> None:
    assert human_duration(duration) == text


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (100_000_000, "100ms"),
        (1_500_000_000, "1.5s"),
        (30 * SECOND, "30s"),
        (90 * SECOND, "1m30s"),
        (90 * MINUTE, "1h30m0s"),
        (HOUR + 1, "1h0m0.000000001s"),
        (-90 * SECOND, "-1m30s"),
    ],
)
def test_exact_duration_is_written_as_go_writes_it(duration: int, text: str) -> None:
    assert format_duration(duration) == text


def test_long_text_ends_in_an_ellipsis() -> None:
    assert ellipsis("nginx -g 'daemon off;'", 20) == "nginx -g 'daemon of…"
    assert ellipsis("exactly twenty chars", 20) == "exactly twenty chars"


def test_quoted_text_keeps_letters_and_escapes_the_rest() -> None:
    assert quote('a "b"\té\x01\u200b') == r'"a \"b\"\té\x01\u200b"'
