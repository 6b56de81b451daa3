"""The words of a Dockerfile: quotes, escapes, and the substitution of variables.

Pure. The rules are those of a shell, where they are: `${name:-word}` and its relatives.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    # A piece of text, and whether blanks in it separate words.
    Piece = tuple[str, bool]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-]")


class WordError(Exception):
    """What is wrong with the words of an instruction."""


def process_word(text: str, env: Mapping[str, str], *, escape: str = "\\") -> str:
    """`text` with its variables replaced and its quotes undone, as one word."""
    return "".join(piece for piece, _ in _Words(text, env, escape).pieces())


def process_words(text: str, env: Mapping[str, str] | None, *, escape: str = "\\") -> list[str]:
    """The words of `text`, which blanks separate. Without `env` they stay as they are written."""
    words: list[str] = []
    is_open = False
    for piece, splits in _Words(text, env, escape).pieces():
        parts = re.split(r"\s+", piece) if splits else [piece]
        for number, part in enumerate(parts):
            if number:
                is_open = False
            if not part and splits:
                continue
            if is_open:
                words[-1] += part
            else:
                words.append(part)
            is_open = True
    return words


def expand(text: str, env: Mapping[str, str], *, escape: str = "\\") -> str:
    """`text` with its variables replaced, and all else as it is: for heredocs."""
    return "".join(piece for piece, _ in _Words(text, env, escape, is_text=True).pieces())


def used_names(text: str, *, escape: str = "\\") -> set[str]:
    """The variables that a word asks for."""
    asked = _Asked()
    try:
        process_word(text, asked, escape=escape)
    except WordError:
        pass
    return asked.names


class _Asked(dict[str, str]):
    """An environment without variables, which remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.names.add(key)
        return default


class _Words:
    def __init__(
        self, text: str, env: Mapping[str, str] | None, escape: str, *, is_text: bool = False
    ) -> None:
        """`is_text`: quotes are characters like others."""
        self._text = text
        self._at = 0
        self._env = env
        self._escape = escape
        self._is_text = is_text

    def pieces(self) -> list[Piece]:
        return self._until("")

    def _next(self) -> str:
        """The next character; "" at the end."""
        character = self._text[self._at : self._at + 1]
        self._at += 1
        return character

    def _until(self, stop: str) -> list[Piece]:
        """The pieces up to the character `stop`, which is passed."""
        found: list[Piece] = []
        while character := self._next():
            if character == stop:
                return found
            if character == "'" and not self._is_text:
                found.append((self._single(), False))
            elif character == '"' and not self._is_text:
                found.append((self._double(), False))
            elif character == "$" and self._env is not None:
                found.append((self._variable(), True))
            elif character == self._escape:
                found.append((self._escaped(), False))
            else:
                found.append((character, character.isspace()))
        if stop:
            raise WordError(f"syntax error: missing '{stop}' in substitution")
        return found

    def _escaped(self) -> str:
        character = self._next()
        if self._env is None or (self._is_text and character not in ("$", self._escape)):
            return self._escape + character
        return character

    def _single(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise WordError("unexpected end of statement while looking for matching single-quote")
        content = self._text[self._at : end]
        self._at = end + 1
        return f"'{content}'" if self._env is None else content

    def _double(self) -> str:
        content: list[str] = []
        while character := self._next():
            if character == '"':
                text = "".join(content)
                return f'"{text}"' if self._env is None else text
            if character == "$" and self._env is not None:
                content.append(self._variable())
            elif character == self._escape:
                character = self._next()
                is_kept = self._env is None or character not in ('"', "$", self._escape)
                content.append(self._escape + character if is_kept else character)
            else:
                content.append(character)
        raise WordError("unexpected end of statement while looking for matching double-quote")

    # ---- variables ----

    def _variable(self) -> str:
        """What stands for `$name` or `${…}`; the `$` is passed."""
        if self._text[self._at : self._at + 1] == "{":
            self._at += 1
            return self._braces()
        name = self._name()
        return self._value(name) or "" if name else "$"

    def _name(self) -> str:
        match = _NAME.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]

    def _value(self, name: str) -> str | None:
        assert self._env is not None
        return self._env.get(name)

    def _braces(self) -> str:
        name = self._name()
        if not name:
            raise WordError("syntax error: bad substitution")
        found = self._value(name)
        operator = self._next()
        if operator == "}":
            return found or ""
        if operator == ":":
            operator = self._next()
            if operator not in ("+", "-", "?"):
                raise WordError(f"unsupported modifier (:{operator}) in substitution")
            return self._choose(name, found or None, operator, "is not allowed to be empty")
        if operator and operator in "+-?":
            return self._choose(name, found, operator, "is not allowed to be unset")
        if operator and operator in "#%":
            return self._strip(found or "", operator)
        if operator == "/":
            return self._replace(found or "")
        if not operator:
            raise WordError("syntax error: missing '}' in substitution")
        raise WordError(f"unsupported modifier ({operator}) in substitution")

    def _choose(self, name: str, found: str | None, operator: str, complaint: str) -> str:
        word = "".join(piece for piece, _ in self._until("}"))
        if operator == "+":
            return "" if found is None else word
        if found is not None:
            return found
        if operator == "?":
            raise WordError(f"{name}: {word or complaint}")
        return word

    def _strip(self, found: str, operator: str) -> str:
        is_greedy = self._text[self._at : self._at + 1] == operator
        if is_greedy:
            self._at += 1
        pattern = self._pattern("}")
        if operator == "#":
            ends = range(len(found) + 1)
            for end in reversed(ends) if is_greedy else ends:
                if re.fullmatch(pattern, found[:end], re.DOTALL):
                    return found[end:]
            return found
        starts = range(len(found) + 1)
        for start in starts if is_greedy else reversed(starts):
            if re.fullmatch(pattern, found[start:], re.DOTALL):
                return found[:start]
        return found

    def _replace(self, found: str) -> str:
        is_all = self._text[self._at : self._at + 1] == "/"
        if is_all:
            self._at += 1
        pattern = self._pattern("/")
        word = "".join(piece for piece, _ in self._until("}"))
        return re.sub(pattern, lambda _: word, found, count=0 if is_all else 1, flags=re.DOTALL)

    def _pattern(self, stop: str) -> str:
        """A glob up to `stop`, as a regular expression: `*` and `?`, and escapes."""
        pattern: list[str] = []
        while character := self._next():
            if character == stop:
                return "".join(pattern)
            if character == self._escape:
                pattern.append(re.escape(self._next()))
            elif character == "$":
                pattern.append(re.escape(self._variable()))
            else:
                pattern.append({"*": ".*", "?": "."}.get(character) or re.escape(character))
        raise WordError(f"syntax error: missing '{stop}' in substitution")
