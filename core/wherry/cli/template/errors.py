"""What is wrong with a template, in the words that docker's users know."""

from __future__ import annotations

from wherry.errors import UsageError


class TemplateError(UsageError):
    """A template that cannot be parsed, or that asks for what the data do not have."""

    exit_code = 1


def parsing_error(name: str, text: str, offset: int, reason: str) -> TemplateError:
    """The error of a template that is not well-formed at `offset`."""
    return TemplateError(
        f"template parsing error: template: {name}:{_line(text, offset)}: {reason}"
    )


def execution_error(
    name: str,
    running: str,
    text: str,
    offset: int,
    source: str,
    reason: str,
    hint: str | None,
) -> TemplateError:
    """The error of a template that stopped at `source`, which begins at `offset`."""
    column = len(text[text.rfind("\n", 0, offset) + 1 : offset].encode())
    return TemplateError(
        f"template parsing error: template: {name}:{_line(text, offset)}:{column}: "
        f'executing "{running}" at <{source}>: {reason}',
        hint=hint,
    )


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1
