"""Rows as tables, JSON and through templates, as docker prints them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from wherry.cli.tables import Table, align, format_rows, label_fields, print_rows, short_id
from wherry.cli.template import TemplateError

TABLE = Table(
    columns=("ID", "Image", "Names"),
    titles={"ID": "CONTAINER ID", "RunningFor": "CREATED"},
    raw="container_id: {{.ID}}\\n",
)


def row(identity: str, name: str, **more: Any) -> dict[str, Any]:
    return {
        "ID": identity,
        "Image": "nginx",
        "Names": name,
        "RunningFor": "2 hours ago",
        "Size": lambda: "3B",
        **label_fields({"com.example.tier-name": "front", "a": "b"}),
        **more,
    }


ROWS = [row("3f4e8a1b2c3d", "web"), row("90f1", "a-long-name", Image="registry.example.com/app:1")]


def test_default_table_has_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(ROWS, TABLE)

    assert capsys.readouterr().out == (
        "CONTAINER ID   IMAGE                        NAMES\n"
        "3f4e8a1b2c3d   nginx                        web\n"
        "90f1           registry.example.com/app:1   a-long-name\n"
    )


def test_table_without_rows_is_its_heading() -> None:
    assert format_rows([], TABLE) == "CONTAINER ID   IMAGE     NAMES\n"
    assert (
        format_rows([], TABLE, template="table {{.ID}}\\t{{.Size}}")
        == "CONTAINER ID   <no value>\n"
    )


def test_format_table_is_the_default_table() -> None:
    assert format_rows(ROWS, TABLE, template="table") == format_rows(ROWS, TABLE)


def test_quiet_prints_ids_whatever_the_format() -> None:
    assert format_rows(ROWS, TABLE, quiet=True) == "3f4e8a1b2c3d\n90f1\n"
    assert format_rows(ROWS, TABLE, quiet=True, template="{{.Names}}") == "3f4e8a1b2c3d\n90f1\n"


def test_template_prints_a_line_for_each_row() -> None:
    assert (
        format_rows(ROWS, TABLE, template="{{.Names}}\\t{{.Size}}") == "web\t3B\na-long-name\t3B\n"
    )


def test_template_of_a_table_has_titles() -> None:
    template = 'table {{.Names}}\\t{{.RunningFor | upper}}\\t{{.Label "com.example.tier-name"}}'

    assert format_rows(ROWS, TABLE, template=template) == (
        "NAMES         CREATED       tier name\n"
        "web           2 HOURS AGO   front\n"
        "a-long-name   2 HOURS AGO   front\n"
    )


def test_template_of_a_table_needs_no_space_after_the_word() -> None:
    assert format_rows(ROWS[:1], TABLE, template="table{{.Names}}") == "NAMES\nweb\n"


def test_heading_that_titles_cannot_make_is_empty() -> None:
    assert format_rows(ROWS[:1], TABLE, template="table {{len .Names | json}}") == "\n3\n"


def test_json_has_all_fields_in_order_and_no_methods() -> None:
    expected = (
        '{"ID":"3f4e8a1b2c3d","Image":"nginx","Labels":"a=b,com.example.tier-name=front",'
        '"Names":"web","RunningFor":"2 hours ago","Size":"3B"}\n'
    )

    assert format_rows(ROWS[:1], TABLE, template="json") == expected
    assert format_rows(ROWS[:1], TABLE, template="{{json .}}") == expected


def test_raw_is_the_template_of_the_command() -> None:
    assert format_rows(ROWS[:1], TABLE, template="raw") == "container_id: 3f4e8a1b2c3d\n\n"


def test_word_that_is_no_template_prints_itself() -> None:
    assert format_rows(ROWS, TABLE, template="pretty") == "pretty\npretty\n"


def test_unknown_field_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(
        TemplateError, match=r":1:2: .* <\.Nme>: can't evaluate field Nme"
    ) as raised:
        format_rows(ROWS, TABLE, template="{{.Nme}}")

    assert "ID, Image, Label, Labels, Names" in str(raised.value.hint)
    assert raised.value.exit_code == 1


def test_value_that_takes_time_is_not_asked_for_in_vain() -> None:
    def size() -> str:
        raise AssertionError("nobody asked for the size")

    assert format_rows([row("1", "web", Size=size)], TABLE, template="{{.ID}}") == "1\n"
    assert format_rows([row("1", "web", Size=size)], TABLE).startswith("CONTAINER ID")


def test_last_cells_widen_no_column_and_get_no_padding() -> None:
    assert align([["a", "a very long last cell"], ["b", "c"], ["d", ""]]) == (
        "a         a very long last cell\nb         c\nd         \n"
    )


def test_line_with_fewer_cells_ends_a_column() -> None:
    lines = [
        ["a-rather-long-cell", "x"],
        ["no columns here"],
        ["b", "c", "d"],
        ["e", "ffffffffff", "g"],
    ]

    assert align(lines) == (
        "a-rather-long-cell   x\n"
        "no columns here\n"
        "b         c            d\n"
        "e         ffffffffff   g\n"
    )


def test_id_is_cut_to_twelve_digits() -> None:
    assert short_id("sha256:3f4e8a1b2c3d4e5f6071") == "3f4e8a1b2c3d"
    assert short_id("sha256:3f4e8a1b2c3d4e5f6071", full=True) == "sha256:3f4e8a1b2c3d4e5f6071"


def test_row_without_labels_has_empty_ones() -> None:
    fields = label_fields(None)

    assert (fields["Labels"], fields["Label"]("x")) == ("", "")


def test_default_table_imports_no_template_engine() -> None:
    code = (
        "import sys; from wherry.cli.tables import Table, print_rows;"
        "print_rows([{'ID': 'x'}], Table(columns=('ID',)));"
        "sys.exit(any(name in sys.modules for name in ('re', 'json', 'wherry.cli.template')))"
    )

    subprocess.run([sys.executable, "-S", "-c", code], check=True, env={"PYTHONPATH": _core()})


def _core() -> str:
    import wherry

    return str(wherry.__path__[0].removesuffix("wherry"))
