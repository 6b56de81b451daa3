"""Sizes, durations, booleans and lists as docker's options write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherry.words import (
    is_ip,
    read_bool,
    read_bytes,
    read_duration,
    read_integer,
    read_natural,
    split_csv,
    write_duration,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("32b", 32),
        ("32k", 32 << 10),
        ("32kb", 32 << 10),
        ("32KiB", 32 << 10),
        ("64M", 64 << 20),
        ("1.5g", 3 << 29),
        ("1 GB", 1 << 30),
        ("2t", 2 << 40),
        ("1p", 1 << 50),
        (".5k", 512),
    ],
)
def test_a_size_has_units_of_1024(text: str, size: int) -> None:
    assert read_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "m", "1..2", "1x", "1mm", "1bb", "1 2", "nan", "inf"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid (size|suffix): "):
        read_bytes(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("1s", 10**9),
        ("1m30s", 90 * 10**9),
        ("1h", 3600 * 10**9),
        ("250ms", 250 * 10**6),
        ("1.5s", 1500 * 10**6),
        ("3us", 3000),
        ("3µs", 3000),
        ("7ns", 7),
        ("-2s", -2 * 10**9),
        ("+2s", 2 * 10**9),
    ],
)
def test_a_duration_is_gos(text: str, nanoseconds: int) -> None:
    assert read_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "1", "s", "1x", "1s2", ".s", "1..5s", "--1s", "1 s", "-"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        read_duration(text)


@given(st.integers(-(10**15), 10**15))
def test_a_duration_that_was_written_reads_the_same(nanoseconds: int) -> None:
    assert read_duration(write_duration(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    ("text", "number"), [("5", 5), ("-5", -5), ("0x1f", 31), ("0o17", 15), ("007", 7)]
)
def test_a_number_may_have_a_base(text: str, number: int) -> None:
    assert read_integer(text) == number


def test_booleans_are_gos() -> None:
    assert [read_bool(text) for text in ("1", "t", "TRUE", "0", "f", "False")] == [True] * 3 + [
        False
    ] * 3
    with pytest.raises(ValueError, match="must be true or false"):
        read_bool("yes")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", [""]),
        ("a,b", ["a", "b"]),
        ('"a,b",c', ["a,b", "c"]),
        ('"say ""hi""",', ['say "hi"', ""]),
    ],
)
def test_fields_may_be_quoted(text: str, fields: list[str]) -> None:
    assert split_csv(text) == fields


@pytest.mark.parametrize("text", ['"a', '"a"b,c'])
def test_a_quote_that_is_not_closed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="in quoted-field"):
        split_csv(text)


@pytest.mark.parametrize(
    ("text", "truth"),
    [("1.2.3.4", True), ("::1", True), ("1.2.3", False), ("x", False), ("fe80::1%eth0", False)],
)
def test_an_address_is_known(text: str, truth: bool) -> None:
    assert is_ip(text) is truth


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("007", 7), ("", -1), ("-1", -1), ("\u00b2", -1), ("\u0663", -1), ("9" * 5000, -1)],
    ids=lambda each: str(each)[:9],
)
def test_a_natural_number_is_made_of_ascii_digits(text: str, number: int) -> None:
    assert read_natural(text) == number
