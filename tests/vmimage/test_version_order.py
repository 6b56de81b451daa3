"""Version numbers sort as dpkg sorts them."""

from __future__ import annotations

import subprocess
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.requirements import need_tool
from wherry_vmimage.versions import satisfies, version_key

# Each is later than the one before it.
ASCENDING = [
    "0~",
    "0",
    "0.0~rc1",
    "0.0",
    "1.0~~",
    "1.0~",
    "1.0~beta1-1",
    "1.0~beta1-2",
    "1.0",
    "1.0-0.1",
    "1.0-1~bpo12+1",
    "1.0-1",
    "1.0-1+b1",
    "1.0-1+deb12u1",
    "1.0-1.1",
    "1.0a",
    "1.0+dfsg-1",
    "1.0.1",
    "1.2",
    "1.10",
    "10",
    "1:0.1",
    "1:1.0",
    "2:0",
]


@pytest.mark.parametrize(("lower", "higher"), list(pairwise(ASCENDING)))
def test_later_version_sorts_after_earlier_one(lower: str, higher: str) -> None:
    assert version_key(lower) < version_key(higher)


@pytest.mark.parametrize(
    ("one", "other"),
    [("1.0", "1.0-0"), ("0:1", "1"), ("1.00", "1.0"), ("1.0-01", "1.0-1"), ("1.", "1.0")],
)
def test_versions_that_differ_only_in_spelling_are_equal(one: str, other: str) -> None:
    assert version_key(one) == version_key(other)


def test_number_of_thousands_of_digits_is_compared() -> None:
    assert version_key("1" * 6000) < version_key("1" * 5999 + "2")


@pytest.mark.parametrize(
    ("operator", "fits"),
    [("<<", False), ("<=", True), ("=", True), (">=", True), (">>", False)],
)
def test_version_stands_in_a_relation_to_itself(operator: str, fits: bool) -> None:
    assert satisfies("1.0", operator, "1.0-0") is fits  # type: ignore[arg-type]


# Upstream versions begin with a digit, for which dpkg otherwise warns.
_UPSTREAM = st.from_regex(r"[0-9][0-9a-z.+~]{0,6}", fullmatch=True)
_VERSIONS = st.builds(
    lambda epoch, upstream, revision: f"{epoch}{upstream}{revision}",
    st.sampled_from(["", "0:", "1:"]),
    _UPSTREAM,
    st.one_of(st.just(""), st.from_regex(r"-[0-9a-z+~.]{1,4}", fullmatch=True)),
)


@settings(max_examples=150)
@given(one=_VERSIONS, other=_VERSIONS)
@example("0", "0a")
def test_order_is_that_of_dpkg(one: str, other: str) -> None:
    dpkg = need_tool("dpkg")
    first, second = version_key(one), version_key(other)
    relation = "lt" if first < second else "gt" if first > second else "eq"

    verdict = subprocess.run(
        [dpkg, "--compare-versions", one, relation, other], check=False, capture_output=True
    )

    assert verdict.returncode == 0, f"{one} {relation} {other}"
