"""`.dockerignore`: which paths are left out."""

from __future__ import annotations

import pytest

from wherry.builder.ignore import read_ignore


@pytest.mark.parametrize(
    ("patterns", "out", "kept"),
    [
        ("a", ["a", "a/b"], ["ab", "x/a"]),
        ("*.md", ["x.md"], ["d/x.md", "x.mdx"]),
        ("**/*.md", ["x.md", "d/e/x.md"], ["x"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "b"]),
        ("a?c", ["abc"], ["ac", "a/c"]),
        ("[a-c]x", ["bx"], ["dx"]),
        ("[^a]x", ["bx"], ["ax"]),
        ("/a/", ["a"], ["b"]),
        ("./a/../b", ["b"], ["a"]),
        ("*\n!keep", ["a"], ["keep", "keep/x"]),
        ("a\n!a/b\na/b/c", ["a/x", "a/b/c"], ["a/b", "a/b/d"]),
        ("# a\n\n  b  \r\n", ["b"], ["a"]),
        ("a\x0cb\u2028c\n #d", ["a\x0cb\u2028c", "#d"], ["a", "b"]),
        ("a\\*", ["a*"], ["ab"]),
        (".", [], ["a"]),
    ],
)
def test_the_last_pattern_that_matches_decides(
    patterns: str, out: list[str], kept: list[str]
) -> None:
    ignore = read_ignore(patterns)

    assert [path for path in out if not ignore.excludes(path)] == []
    assert [path for path in kept if ignore.excludes(path)] == []


def test_a_directory_may_hold_an_exception() -> None:
    ignore = read_ignore("a\n!a/b/c\nx")

    assert ignore.may_hold("a")
    assert ignore.may_hold("a/b")
    assert not ignore.may_hold("x")
    assert read_ignore("a\n!**/keep").may_hold("a/b")


def test_a_malformed_pattern_is_refused() -> None:
    for text in ("[a", "a\\"):
        with pytest.raises(ValueError, match="syntax error in pattern"):
            read_ignore(text)
    with pytest.raises(ValueError, match="illegal exclusion pattern"):
        read_ignore("a\n!\n")
