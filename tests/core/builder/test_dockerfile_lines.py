"""A Dockerfile's text becomes lines: directives, continuations, comments, heredocs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from wherry.builder.errors import DockerfileError, excerpt
from wherry.builder.parser import parse


def lines(text: str) -> list[tuple[str, tuple[str, ...], str]]:
    return [(line.keyword, line.flags, line.rest) for line in parse(text).lines]


def test_keywords_are_read_in_any_case_and_lines_are_counted() -> None:
    found = parse("\n# comment\nfrom a\n\nRun b\n").lines

    assert [(line.keyword, line.rest, line.first, line.last) for line in found] == [
        ("FROM", "a", 3, 3),
        ("RUN", "b", 5, 5),
    ]


def test_a_line_goes_on_after_an_escape_and_over_comments_and_empty_lines() -> None:
    document = parse("RUN a \\\n  # comment\n\n  b \\  \n\tc\nRUN d\\\\\n")

    assert [line.rest for line in document.lines] == ["a   b \tc", "d\\\\"]
    assert (document.lines[0].first, document.lines[0].last) == (1, 5)
    assert document.empty_continuations == (3,)


def test_the_escape_is_what_a_directive_says() -> None:
    document = parse("# syntax=docker/dockerfile:1\n#Escape=`\nRUN c:\\\\ `\n  b\n")

    assert document.directives == {"syntax": "docker/dockerfile:1", "escape": "`"}
    assert document.lines[0].rest == "c:\\\\   b"


def test_directives_end_with_the_first_line_that_is_none() -> None:
    document = parse("# just a comment\n# escape=`\nRUN a \\\nb\n")

    assert document.directives == {}
    assert document.lines[0].rest == "a b"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("# escape=x\nFROM a\n", "invalid ESCAPE 'x'. Must be ` or \\"),
        ("# escape=`\n# escape=`\nFROM a\n", "only one escape parser directive can be used"),
        ("", "file with no instructions"),
        ("# comment\n", "file with no instructions"),
        ("RUN <<END\ntext\n", "unterminated heredoc"),
    ],
)
def test_what_is_no_dockerfile_is_refused(text: str, reason: str) -> None:
    with pytest.raises(DockerfileError, match="dockerfile parse error on line") as refused:
        parse(text)

    assert reason in refused.value.message


def test_flags_stand_between_the_keyword_and_the_rest() -> None:
    assert lines("COPY --from=x --chown=1:2 --link a b\n") == [
        ("COPY", ("--from=x", "--chown=1:2", "--link"), "a b")
    ]
    assert lines("RUN -- --mount a\n") == [("RUN", (), "--mount a")]
    assert lines('RUN --mount="type=bind,target=/a b" c\n') == [
        ("RUN", ("--mount=type=bind,target=/a b",), "c")
    ]


def test_heredocs_follow_the_line_that_announces_them() -> None:
    found = parse("COPY <<one <<-'two' /d/\nfirst $a\none\n\tsecond\n\ttwo\nRUN x\n").lines

    one, two = found[0].heredocs
    assert (one.name, one.text, one.expand, one.chomp) == ("one", "first $a\n", True, False)
    assert (two.name, two.text, two.expand, two.chomp) == ("two", "second\n", False, True)
    assert (found[0].last, found[1].rest) == (5, "x")


def test_what_only_looks_like_a_heredoc_is_none() -> None:
    for text in ('RUN echo "<<a"\n', "RUN cat <<<word\n", "RUN a << b\n", "ENV a=<<b\n"):
        assert parse(text).lines[0].heredocs == ()
    # Where a quote stays open, only the shell can tell.
    assert parse("RUN cat << a # it's\n").lines[0].heredocs == ()


def test_an_excerpt_marks_its_lines() -> None:
    text = "FROM a\nRUN b \\\n  c\nRUN d\nRUN e\nRUN f\n"

    assert excerpt(text, "Dockerfile", 2, 3).splitlines() == [
        "Dockerfile:2-3",
        "--------------------",
        "   1 |     FROM a",
        "   2 | >>> RUN b \\",
        "   3 | >>>   c",
        "   4 |     RUN d",
        "   5 |     RUN e",
        "   6 |     RUN f",
        "--------------------",
    ]


@given(some.text(alphabet="RUNCOPY <-ab'\"\\$\n\t#={}[],`", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    from wherry.builder.instructions import read_dockerfile

    try:
        read_dockerfile(f"FROM a\n{text}")
    except DockerfileError:
        pass
