"""Cuts a template into tokens: the text between actions, and the words inside them."""

from __future__ import annotations

import re

from wherry.cli.template.errors import parsing_error
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

KEYWORDS = frozenset("block break continue define else end if nil range template with".split())

_WORDS = re.compile(
    r"""
      (?P<space>      [ \t\r\n]+ )
    | (?P<raw>        `[^`]*` )
    | (?P<string>     "(?:\\.|[^"\\\n])*" )
    | (?P<char>       '(?:\\.|[^'\\\n])+' )
    | (?P<number>     [+-]?(?:0[xX][0-9a-fA-F_]+|\.?[0-9](?:[eEpP][+-]|[0-9A-Za-z_.])*) )
    | (?P<variable>   \$\w* )
    | (?P<field>      \.\w+ )
    | (?P<dot>        \. )
    | (?P<declare>    := )
    | (?P<name>       [^\W\d]\w* )
    | (?P<mark>       [!-~] )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"(?:-[ \t\r\n]+)?/\*")
_TRIM_LEFT = re.compile(r"-(?=[ \t\r\n])")
_CLOSE = re.compile(r"(?P<trim>(?<=[ \t\r\n])-)?\}\}")
_COMMENT_CLOSE = re.compile(r"(?P<trim>[ \t\r\n]-)?\}\}")
# What is wrong where one of these is no word with what follows.
_OPENERS = {
    '"': "unterminated quoted string",
    "`": "unterminated raw quoted string",
    "'": "unterminated character constant",
    ":": "expected :=",
}
_BLANKS = " \t\r\n"


@value
class Token:
    """A word of a template, and where it stands."""

    kind: str
    text: str
    offset: int

    @property
    def end(self) -> int:
        return self.offset + len(self.text)


def tokens(name: str, text: str) -> Iterator[Token]:
    """The tokens of `text`; an action is held between tokens of the kinds `open` and `close`."""
    position, trim = 0, False
    while True:
        opening = text.find("{{", position)
        plain = text[position : opening if opening >= 0 else len(text)]
        trimmed_next = opening >= 0 and _starts_with_trim(text, opening + 2)
        if trim:
            position += len(plain) - len(plain.lstrip(_BLANKS))
            plain = plain.lstrip(_BLANKS)
        if trimmed_next:
            plain = plain.rstrip(_BLANKS)
        if plain:
            yield Token(kind="text", text=plain, offset=position)
        if opening < 0:
            yield Token(kind="eof", text="", offset=len(text))
            return
        if _COMMENT.match(text, opening + 2):
            position, trim = _skip_comment(name, text, opening)
            continue
        yield Token(kind="open", text="{{", offset=opening)
        position = opening + 2 + trimmed_next
        for token in _action(name, text, position, opening):
            yield token
            position = token.end
        trim = token.text.startswith("-")


def _starts_with_trim(text: str, position: int) -> bool:
    return _TRIM_LEFT.match(text, position) is not None


def _skip_comment(name: str, text: str, opening: int) -> tuple[int, bool]:
    end = text.find("*/", opening)
    if end < 0:
        raise parsing_error(name, text, opening, "unclosed comment")
    close = _COMMENT_CLOSE.match(text, end + 2)
    if close is None:
        raise parsing_error(name, text, opening, "comment ends before closing delimiter")
    return close.end(), close["trim"] is not None


def _action(name: str, text: str, position: int, opening: int) -> Iterator[Token]:
    """The tokens from `position` up to and with the next `}}`."""
    depth = 0
    while True:
        close = _CLOSE.match(text, position)
        if close is not None:
            if depth:
                raise parsing_error(name, text, position, "unclosed left paren")
            yield Token(kind="close", text=close[0], offset=position)
            return
        word = _WORDS.match(text, position)
        if word is None or word[0] in _OPENERS:
            raise parsing_error(name, text, opening, _what_is_wrong(text, position))
        kind = str(word.lastgroup)
        if kind == "mark":
            kind = word[0]
            depth += (kind == "(") - (kind == ")")
            if depth < 0:
                raise parsing_error(name, text, position, "unexpected right paren")
        elif kind == "name" and word[0] in KEYWORDS:
            kind = word[0]
        yield Token(kind=kind, text=word[0], offset=position)
        position = word.end()


def _what_is_wrong(text: str, position: int) -> str:
    if position >= len(text):
        return "unclosed action"
    character = text[position]
    return _OPENERS.get(
        character, f"unrecognized character in action: U+{ord(character):04X} {character!r}"
    )
