"""Dependency fields, and which package stands for what they name."""

from __future__ import annotations

import pytest

from wherry.errors import CorruptState
from wherry_vmimage.control import (
    Relation,
    parse_paragraph,
    parse_paragraphs,
    parse_relations,
    write_paragraph,
)
from wherry_vmimage.packages import Package


def package(**fields: str) -> Package:
    base = {"Package": "thing", "Version": "2.0", "Architecture": "amd64"}
    return Package({**base, **fields}, "file:///mirror")


def test_field_is_a_list_of_alternatives() -> None:
    parsed = parse_relations("libc6 (>= 2.36), default-mta | mail-transport-agent,python3:any,")

    assert parsed == (
        (Relation("libc6", "", ">=", "2.36"),),
        (Relation("default-mta"), Relation("mail-transport-agent")),
        (Relation("python3", "any"),),
    )


def test_old_operators_include_equality() -> None:
    parsed = parse_relations("a (< 1), b (> 2), c(>=3)")

    assert [alternatives[0].operator for alternatives in parsed] == ["<=", ">=", ">="]


@pytest.mark.parametrize("text", ["a (>= )", "a b", "(>= 1)", "a (~ 1)", "a [amd64]"])
def test_what_is_no_relation_is_an_error(text: str) -> None:
    with pytest.raises(CorruptState, match="not a package relation"):
        parse_relations(text)


@pytest.mark.parametrize(
    ("relation", "fits"),
    [
        (Relation("thing"), True),
        (Relation("thing", "", ">=", "2"), True),
        (Relation("thing", "", "<<", "2"), False),
        (Relation("thing", "any"), True),
        (Relation("thing", "arm64"), False),
        (Relation("other"), False),
        (Relation("virtual"), True),
        (Relation("virtual", "", ">=", "1"), False),
        (Relation("versioned"), True),
        (Relation("versioned", "", "=", "7"), True),
        (Relation("versioned", "", ">>", "7"), False),
    ],
)
def test_package_stands_for_its_name_and_for_what_it_provides(
    relation: Relation, fits: bool
) -> None:
    thing = package(Provides="virtual, versioned (= 7)")

    assert thing.matches(relation, "amd64") is fits


def test_paragraph_is_written_as_it_was_read() -> None:
    text = "Package: a\nDescription: short\n long\n .\n   indented\nConffiles:\n /etc/a 00\n"

    assert write_paragraph(parse_paragraph(text)) == text


def test_empty_lines_and_comments_divide_paragraphs() -> None:
    text = "# head\nA: 1\n\n# between\n\nB: 2\n \nC: 3\n"

    assert list(parse_paragraphs(text)) == [{"A": "1"}, {"B": "2"}, {"C": "3"}]


@pytest.mark.parametrize("text", [" continued\n", "no colon here\n", ": no name\n"])
def test_damaged_paragraph_is_an_error(text: str) -> None:
    with pytest.raises(CorruptState):
        parse_paragraph(text)
