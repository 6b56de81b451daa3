"""What others have written reaches the terminal as text, never as orders to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wherry.cli.each import complain
from wherry.errors import NotFound, WherryError, from_json
from wherry.harmless import harmless

if TYPE_CHECKING:
    import pytest


def test_control_characters_are_shown_and_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    complain("no user \x1b]0;title\x07", "try\n\tthis\r\x9b2J")

    assert capsys.readouterr().err == (
        "wherry: no user \\x1b]0;title\\x07\ntry\n\tthis\\x0d\\x9b2J\n"
    )


def test_text_of_every_language_stays_as_it_is() -> None:
    assert harmless("no such file: früh/дом/家 ✓") == "no such file: früh/дом/家 ✓"


def test_error_of_another_process_is_never_more_than_an_error() -> None:
    fields: dict[str, object] = {"class": "from_json", "message": "x", "hint": None, "errno": 0}

    assert type(from_json(fields)) is WherryError
    assert type(from_json({**fields, "class": "NotFound"})) is NotFound
