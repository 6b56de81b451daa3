"""Documents: what `inspect`, `info` and `version` print, as JSON or through a template."""

from __future__ import annotations

import sys

from wherry.harmless import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from wherry.cli.template import Template

# docker's exit code for a template that its `inspect`, `info` and `version` cannot parse.
_MALFORMED = 64


def print_documents(documents: Iterable[Mapping[str, Any]], template: str | None = None) -> None:
    """Print each of the documents that `inspect` found, or all of them as a JSON list."""
    sys.stdout.write(format_documents(documents, template))


def format_documents(documents: Iterable[Mapping[str, Any]], template: str | None = None) -> str:
    """What `print_documents` prints. Raises TemplateError."""
    if not template:
        return indented(list(documents)) + "\n"
    if template == "json":
        from wherry.cli.template import encode, typed

        return encode([typed(document) for document in documents]) + "\n"
    parsed = _parse(template)
    return "".join(_render(parsed, document) for document in documents)


def format_document(document: Mapping[str, Any], template: str) -> str:
    """One document through a template, as for `info` and `version`. Raises TemplateError."""
    return _render(_parse("{{json .}}" if template == "json" else template), document)


def indented(document: object) -> str:
    """`document` as JSON for people, as docker indents it."""
    import json

    # Which leaves some controls as they are.
    return shown(json.dumps(document, indent=4, ensure_ascii=False))


def _parse(text: str) -> Template:
    from wherry.cli.template import TemplateError, parse_template

    try:
        return parse_template(text)
    except TemplateError as error:
        error.exit_code = _MALFORMED
        raise


def _render(template: Template, document: Mapping[str, Any]) -> str:
    from wherry.cli.template import typed

    return template.render(typed(document)) + "\n"
