"""Absurd words on every command line: a value, or one line that says what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.cli import main as cli
from wherry.cli.grammar import HELP
from wherry.errors import UsageError, WherryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry.cli.grammar import Declaration

_ABSURD = [
    "", " ", "-", "--", "-1", "0", "99999999999999999999", "1e309", "nan", "inf", "0x", "1_000",
    "abc", "é☃", "\x01\x1b[2J", "\udcff", "\n", "=", "=x", "a=b=c", ":", "::", "[::1", "/", "../..",
    "@", "sha256:", "{{", "{{.X", "1h", "-5m", "1y", "true", "type=bind", "type=", ",", ",,=",
    "until=", "src=,dst=", "a:b:c:d", "1-0", "70000-1", "keep-id:uid=x", "container:", "x" * 5000,
    "٣", "²", "1.", ".", "-.5g", "5 gg",
]  # fmt: skip


def _commands(table: cli.Table) -> Iterator[Declaration]:
    for entry in table.values():
        if isinstance(entry, dict):
            yield from _commands(entry)
        else:
            yield cli.load(entry)


_COMMANDS = sorted(
    {" ".join(each.path): each for each in _commands(cli.COMMANDS)}.items(),
    key=lambda pair: pair[0],
)


def _check(declaration: Declaration, words: list[str]) -> None:
    try:
        values = declaration.parse(words)
    except UsageError as error:
        assert error.exit_code in (1, 125)
        assert error.message
        return
    except WherryError as error:
        pytest.fail(f"{words}: {error!r} is no UsageError")
    if set(values) == {HELP}:
        return
    # What was understood can be said again, to a wherry elsewhere.
    again = declaration.parse(declaration.argv(**values)[len(declaration.path) :])
    assert again == values


@pytest.mark.parametrize(("name", "declaration"), _COMMANDS, ids=[name for name, _ in _COMMANDS])
def test_every_option_is_read_or_refused(name: str, declaration: Declaration) -> None:
    needed = ["x" for each in declaration.arguments if each.required]
    for option in declaration.options:
        for absurd in _ABSURD:
            _check(declaration, [f"{option.long}={absurd}", *needed])
    for absurd in _ABSURD:
        _check(declaration, [absurd for each in declaration.arguments if each.required])


@settings(max_examples=40)
@given(st.lists(st.text(max_size=8) | st.sampled_from(_ABSURD), max_size=6))
@pytest.mark.parametrize(("name", "declaration"), _COMMANDS, ids=[name for name, _ in _COMMANDS])
def test_any_words_are_read_or_refused(
    name: str, declaration: Declaration, words: list[str]
) -> None:
    _check(declaration, words)
