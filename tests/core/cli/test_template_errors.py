"""A wrong template is one clear line, in docker's words, that says where."""

from __future__ import annotations

import pytest

from wherry.cli.template import TemplateError, parse_template
from wherry.errors import UsageError

DATA = {"Name": "/web", "List": ["a"], "Null": None, "Map": {"a": 1}}


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{.Name", ":1: unclosed action"),
        ("{{", ":1: unclosed action"),
        ("one\ntwo {{.Name | }\n}}", ':2: unexpected "}" in command'),
        ("{{nosuch .Name}}", ':1: function "nosuch" not defined'),
        ("{{$x}}", ':1: undefined variable "$x"'),
        ("{{if .Name}}", ":1: unexpected EOF"),
        ("{{range .List}}\n{{.}}", ":2: unexpected EOF"),
        ("{{end}}", ":1: unexpected {{end}}"),
        ("{{else}}", ":1: unexpected {{else}}"),
        ("{{}}", ":1: missing value for command"),
        ("{{if}}{{end}}", ":1: missing value for if"),
        ("{{(.Name}}", ":1: unclosed left paren"),
        ("{{.Name)}}", ":1: unexpected right paren"),
        ('{{"open}}', ":1: unterminated quoted string"),
        ("{{`open}}", ":1: unterminated raw quoted string"),
        ("{{'open}}", ":1: unterminated character constant"),
        ("{{/* open }}", ":1: unclosed comment"),
        ("{{/* x */ .Name}}", ":1: comment ends before closing delimiter"),
        ("{{break}}", ":1: {{break}} outside {{range}}"),
        ('{{"a".Name}}', r':1: unexpected . after term "\"a\""'),
        ("{{.Name | 1}}", ":1: non executable command in pipeline stage 2"),
        ("{{1x}}", ':1: bad number syntax: "1x"'),
        ('{{template "a" | }}{{end}}', ':1: unexpected "|" in template clause'),
        ("{{\u2026}}", ":1: unrecognized character in action: U+2026 '…'"),
    ],
)
def test_malformed_template_is_refused_with_its_line(template: str, reason: str) -> None:
    with pytest.raises(TemplateError) as raised:
        parse_template(template)

    assert raised.value.message == f"template parsing error: template: {reason}"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            "{{.Name.More}}",
            ':1:7: executing "" at <.Name.More>: can\'t evaluate field More in type string',
        ),
        (
            "a\n  {{.Null.More}}",
            ':2:9: executing "" at <.Null.More>: nil pointer evaluating interface {}.More',
        ),
        (
            "é{{index .List 5}}",
            ':1:4: executing "" at <index .List 5>: error calling index: index out of range: 5',
        ),
        (
            "{{index (index .Map   .Name) 0}}",
            (
                ':1:2: executing "" at <index (index .Map .Name) 0>: '
                "error calling index: index of untyped nil"
            ),
        ),
        (
            "{{len 3}}",
            ':1:2: executing "" at <len 3>: error calling len: len of type int',
        ),
        (
            "{{range .Name}}{{end}}",
            ':1:8: executing "" at <.Name>: range can\'t iterate over /web',
        ),
        (
            "{{upper .List}}",
            (
                ':1:8: executing "" at <.List>: '
                "wrong type for value; expected string; got []interface {}"
            ),
        ),
        (
            "{{upper}}",
            ':1:2: executing "" at <upper>: wrong number of args for upper: want 1 got 0',
        ),
        (
            "{{eq .Name 1}}",
            (
                ':1:2: executing "" at <eq .Name 1>: '
                "error calling eq: incompatible types for comparison"
            ),
        ),
        (
            "{{.Map.a 1}}",
            ':1:6: executing "" at <.Map.a>: a is not a method but has arguments',
        ),
        (
            '{{define "t"}}{{.Name.x}}{{end}}{{template "t" .}}',
            ':1:21: executing "t" at <.Name.x>: can\'t evaluate field x in type string',
        ),
        (
            '{{template "t"}}',
            ':1:11: executing "" at <{{template "t"}}>: template "t" not defined',
        ),
    ],
)
def test_template_that_cannot_go_on_says_where_it_stopped(template: str, reason: str) -> None:
    with pytest.raises(TemplateError) as raised:
        parse_template(template).render(DATA)

    assert raised.value.message == f"template parsing error: template: {reason}"


def test_template_error_is_an_error_of_usage() -> None:
    assert issubclass(TemplateError, UsageError)


def test_template_that_includes_itself_is_stopped() -> None:
    template = parse_template('{{define "t"}}{{template "t"}}{{end}}{{template "t"}}')

    with pytest.raises(TemplateError, match="exceeded maximum template depth"):
        template.render(None)


def test_template_that_is_nested_without_end_is_refused() -> None:
    with pytest.raises(TemplateError, match="nested too deeply"):
        parse_template("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}")


def test_attributes_of_strings_and_private_ones_are_out_of_reach() -> None:
    class Thing:
        Name = "thing"
        _secret = "secret"

    assert parse_template("{{.Name}}").render(Thing()) == "thing"
    for template in ("{{._secret}}", "{{.__class__}}", "{{.Name.upper}}", "{{.Name.__class__}}"):
        with pytest.raises(TemplateError, match="can't evaluate field"):
            parse_template(template).render(Thing())


def test_method_is_called_with_its_arguments() -> None:
    data = {"Label": lambda name: {"a": "x"}.get(name, ""), "Lazy": lambda: [1, 2]}

    assert parse_template('{{.Label "a"}}{{"a" | .Label}}{{len .Lazy}}').render(data) == "xx2"
    with pytest.raises(TemplateError, match="wrong number of args for Label: want 1 got 0"):
        parse_template("{{.Label}}").render(data)
