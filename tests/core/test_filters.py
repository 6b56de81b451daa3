"""`--filter`: what is asked, and what agrees with it."""

from __future__ import annotations

import pytest

from wherry.errors import UsageError
from wherry.filters import (
    matches,
    matches_exactly,
    matches_id,
    matches_labels,
    matches_name,
    parse_boolean,
    parse_filters,
)

ALLOWED = ("id", "name", "label", "label!", "status", "dangling")


def test_values_of_one_key_are_collected() -> None:
    filters = parse_filters(["status=running", " Status = paused ", "", "name="], ALLOWED)

    assert filters == {"status": ("running", "paused"), "name": ("",)}


def test_label_value_may_hold_equals_signs() -> None:
    assert parse_filters(["label=a=b=c", "label!=x=y"], ALLOWED) == {
        "label": ("a=b=c",),
        "label!": ("x=y",),
    }


def test_unknown_key_is_named_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match="invalid filter 'foo'") as raised:
        parse_filters(["foo=bar"], ALLOWED)

    assert "dangling, id, label, label!, name, status" in str(raised.value.hint)


def test_filter_without_value_is_refused() -> None:
    with pytest.raises(UsageError, match="invalid filter 'running'"):
        parse_filters(["running"], ALLOWED)


def test_one_of_the_values_of_a_key_has_to_agree() -> None:
    filters = parse_filters(["status=running", "status=paused"], ALLOWED)

    assert matches_exactly(filters, "status", "paused")
    assert not matches_exactly(filters, "status", "exited")
    assert matches(filters, "status", lambda value: value.startswith("p"))


def test_key_that_is_not_given_agrees_with_anything() -> None:
    assert matches_exactly({}, "status", "exited")
    assert matches_id({}, "abc")
    assert matches_name({}, "web")
    assert matches_labels({}, None)


@pytest.mark.parametrize(
    ("pattern", "agrees"),
    [
        ("web", True),
        ("eb-", True),
        ("^web", True),
        ("^/web", True),
        ("^web-1$", True),
        ("^/web-1$", True),
        ("^eb", False),
        ("web-.$", True),
        ("db", False),
        ("[", False),
    ],
)
def test_name_is_found_by_part_or_regular_expression(pattern: str, agrees: bool) -> None:
    filters = parse_filters([f"name={pattern}"], ALLOWED)

    assert matches_name(filters, "/web-1") is agrees
    assert matches_name(filters, "web-1") is agrees


@pytest.mark.parametrize(
    ("prefix", "agrees"),
    [("3f4e", True), ("sha256:3f4e", True), ("3f4e8a1b", True), ("4e8a", False), ("3f5", False)],
)
def test_id_is_found_by_its_beginning(prefix: str, agrees: bool) -> None:
    filters = parse_filters([f"id={prefix}"], ALLOWED)

    assert matches_id(filters, "sha256:3f4e8a1b") is agrees
    assert matches_id(filters, "3f4e8a1b") is agrees


@pytest.mark.parametrize(
    ("given", "agrees"),
    [
        (["label=tier"], True),
        (["label=tier=front"], True),
        (["label=tier=back"], False),
        (["label=tier="], False),
        (["label=empty="], True),
        (["label=nope"], False),
        (["label=tier", "label=empty"], True),
        (["label=tier", "label=nope"], False),
        (["label!=nope"], True),
        (["label!=tier"], False),
        (["label!=tier=back"], True),
        (["label!=tier", "label!=nope"], False),
        (["label=tier", "label!=nope"], True),
    ],
)
def test_all_labels_and_no_unwanted_one_are_there(given: list[str], agrees: bool) -> None:
    labels = {"tier": "front", "empty": ""}

    assert matches_labels(parse_filters(given, ALLOWED), labels) is agrees


def test_boolean_filter_is_true_false_or_not_given() -> None:
    assert parse_boolean(parse_filters(["dangling=true"], ALLOWED), "dangling") is True
    assert parse_boolean(parse_filters(["dangling=0"], ALLOWED), "dangling") is False
    assert parse_boolean({}, "dangling") is None


@pytest.mark.parametrize("given", [["dangling=perhaps"], ["dangling=true", "dangling=false"]])
def test_boolean_filter_that_is_neither_is_refused(given: list[str]) -> None:
    with pytest.raises(UsageError, match="invalid filter 'dangling="):
        parse_boolean(parse_filters(given, ALLOWED), "dangling")
