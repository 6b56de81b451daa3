"""Quotes, escapes and variables in the words of a Dockerfile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from wherry.builder.words import WordError, expand, process_word, process_words, used_names

ENV = {"v": "value", "empty": "", "path": "/a/b/c.tar.gz", "words": "one two"}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("plain", "plain"),
        ("$v", "value"),
        ("a${v}b", "avalueb"),
        ("$missing", ""),
        ("\\$v", "$v"),
        ("'$v'", "$v"),
        ('"$v"', "value"),
        ('"a\\"b\\c"', 'a"b\\c'),
        ("a\\ b", "a b"),
        ("$", "$"),
        ("$%", "$%"),
        ("${v:-other}", "value"),
        ("${missing:-other}", "other"),
        ("${empty:-other}", "other"),
        ("${empty-other}", ""),
        ("${missing-other}", "other"),
        ("${missing:-$v}", "value"),
        ("${v:+other}", "other"),
        ("${empty:+other}", ""),
        ("${empty+other}", "other"),
        ("${missing+other}", ""),
        ("${path#*/}", "a/b/c.tar.gz"),
        ("${path##*/}", "c.tar.gz"),
        ("${path%.*}", "/a/b/c.tar"),
        ("${path%%.*}", "/a/b/c"),
        ("${path#x}", "/a/b/c.tar.gz"),
        ("${path/a/x}", "/x/b/c.tar.gz"),
        ("${path//\\//-}", "-a-b-c.tar.gz"),
        ("${path/?b/}", "/a/c.tar.gz"),
        ("${v:?gone}", "value"),
    ],
)
def test_a_word_is_what_a_shell_would_make_of_it(text: str, word: str) -> None:
    assert process_word(text, ENV) == word


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${missing:?is gone}", "missing: is gone"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${missing?}", "missing: is not allowed to be unset"),
        ("${v", "missing '}'"),
        ("${}", "bad substitution"),
        ("${v:=x}", "unsupported modifier"),
        ("${v!}", "unsupported modifier"),
        ("'a", "single-quote"),
        ('"a', "double-quote"),
    ],
)
def test_what_no_shell_would_take_is_refused(text: str, reason: str) -> None:
    with pytest.raises(WordError, match=reason.replace("(", "\\(")):
        process_word(text, ENV)


def test_words_are_separated_by_blanks_but_not_within_quotes() -> None:
    assert process_words("a  'b c' \"d e\"f g\\ h", {}) == ["a", "b c", "d ef", "g h"]
    assert process_words("x$words '$words' \"$words\"", ENV) == ["xone", "two", "$words", "one two"]
    assert process_words("'' a", {}) == ["", "a"]
    assert process_words("$missing", {}) == []
    assert process_words("a 'b c' $v", None) == ["a", "'b c'", "$v"]


def test_a_text_keeps_all_but_its_variables() -> None:
    assert expand("a 'b' \"$v\" \\n \\$v ${v}\n", ENV) == "a 'b' \"value\" \\n $v value\n"


def test_the_variables_of_a_word_are_known() -> None:
    assert used_names("$a ${b:-$c} '$d'") == {"a", "b", "c"}


def test_another_escape_leaves_backslashes_alone() -> None:
    assert process_word("c:\\dir`$v\\$v", ENV, escape="`") == "c:\\dir$v\\value"


@given(some.text(max_size=40))
def test_any_text_is_a_word_or_refused(text: str) -> None:
    try:
        process_word(text, ENV)
        process_words(text, ENV)
    except WordError:
        pass
