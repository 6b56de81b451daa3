"""Tables, `--format`, `--quiet`: how a command prints its rows.

A command has its rows as dicts with docker's field names, and one `Table` that knows
their titles:

    CONTAINERS = Table(
        columns=("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"),
        titles={"ID": "CONTAINER ID", "RunningFor": "CREATED"},
    )
    print_rows(rows, CONTAINERS, template=format, quiet=quiet)

The title of a field is its name in capitals where `titles` has no other. A callable in a
row is a value that takes time to find out and that not every format asks for, or the
method `{{.Label "name"}}`, which `label_fields` makes. Templates are imported only where
one is given.
"""

from __future__ import annotations

import sys

from wherry.harmless import shown
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    Row = Mapping[str, Any]

_MIN_WIDTH = 10
_PADDING = 3


@value
class Table:
    """The columns that a command shows by itself, and the titles of all it can show."""

    columns: tuple[str, ...]
    titles: Mapping[str, str] = {}
    quiet: str = "ID"  # the field that --quiet prints
    raw: str = ""  # the template that `--format raw` means, for the commands that have it

    def title(self, field: str) -> str:
        return self.titles.get(field, field.upper())


def print_rows(
    rows: Iterable[Row], table: Table, *, template: str | None = None, quiet: bool = False
) -> None:
    """Print `rows` as docker does. Raises TemplateError for a wrong `template`."""
    sys.stdout.write(format_rows(rows, table, template=template, quiet=quiet))


def format_rows(
    rows: Iterable[Row], table: Table, *, template: str | None = None, quiet: bool = False
) -> str:
    """What `print_rows` prints."""
    if quiet:
        return "".join(f"{_plain(row, table.quiet)}\n" for row in rows)
    if not template or template == "table":
        cells = [[_plain(row, field) for field in table.columns] for row in rows]
        return align([[table.title(field) for field in table.columns], *cells])
    return _format_with(template, rows, table)


def _plain(row: Row, field: str) -> str:
    content = row[field]
    return shown(str(content() if callable(content) else content))


def _format_with(given: str, rows: Iterable[Row], table: Table) -> str:
    """`rows` through the template that `given` is, or stands for."""
    from wherry.cli import template

    text = {"json": "{{json .}}", "raw": table.raw or "raw"}.get(given, given)
    is_table = text.startswith("table")
    text = text.removeprefix("table").strip(" ").replace("\\t", "\t").replace("\\n", "\n")
    parsed = template.parse_template(text)
    own = [template.Row(row) for row in rows]
    lines = [parsed.render(row) for row in own]
    if not is_table:
        return "".join(f"{line}\n" for line in lines)
    fields = {*table.columns, *table.titles, *(name for row in own for name in row)}
    titles: dict[str, object] = {field: table.title(field) for field in fields}
    heading = parsed.render_heading({**titles, "Label": _label_title})
    return align([line.split("\t") for line in "\n".join([heading, *lines]).split("\n")])


def _label_title(name: str) -> str:
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def label_fields(labels: Mapping[str, str] | None) -> dict[str, Any]:
    """The fields of a row that tell its labels: `.Labels`, and `.Label "name"`."""
    known = labels or {}
    return {
        "Labels": ",".join(f"{name}={text}" for name, text in sorted(known.items())),
        "Label": lambda name: known.get(name, ""),
    }


def short_id(identity: str, *, full: bool = False) -> str:
    """The twelve digits that tables show of an id or digest; all of it with --no-trunc."""
    return identity if full else identity.rpartition(":")[2][:12]


def align(lines: Sequence[Sequence[str]]) -> str:
    """`lines` of cells as columns: each as wide as its widest cell, ten letters at least.

    A column is the cells below each other that have another cell to their right, so the
    last cell of a line widens nothing. As in Go's text/tabwriter, a line without the
    column ends it, and below begins a new one.
    """
    widths: list[list[int]] = [[] for _ in lines]
    _measure(lines, widths, 0, len(lines), 0)
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(line[:-1], line_widths, strict=True))
        + "".join(line[-1:])
        + "\n"
        for line, line_widths in zip(lines, widths, strict=True)
    )


def _measure(
    lines: Sequence[Sequence[str]], widths: list[list[int]], start: int, end: int, column: int
) -> None:
    """Find the widths from `column` on, of each block of lines that have that column."""
    while start < end:
        if len(lines[start]) - 1 <= column:
            start += 1
            continue
        stop = start
        while stop < end and len(lines[stop]) - 1 > column:
            stop += 1
        width = max(len(line[column]) for line in lines[start:stop])
        for line_widths in widths[start:stop]:
            line_widths.append(max(width + _PADDING, _MIN_WIDTH))
        _measure(lines, widths, start, stop, column + 1)
        start = stop
