"""A Dockerfile's text becomes lines: directives, continuations, comments, heredocs.

What an instruction means is not known here; see wherry.builder.instructions.
"""

from __future__ import annotations

import re

from wherry.builder.errors import syntax_error
from wherry.builder.words import WordError, process_words
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*$")
_DIRECTIVES = ("syntax", "escape", "check")
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]*)$", re.DOTALL)
# The instructions that take heredocs.
_WITH_HEREDOCS = ("ADD", "COPY", "RUN")
_TABS = re.compile(r"^\t+", re.MULTILINE)


@value
class Heredoc:
    """A text that stands in the lines below its instruction."""

    name: str
    content: str
    # Whether variables in it are replaced: its name was not quoted.
    expand: bool
    # `<<-`: the tabs that its lines begin with are not its own.
    chomp: bool

    @property
    def text(self) -> str:
        """What it says, without the tabs of `<<-`."""
        return _TABS.sub("", self.content) if self.chomp else self.content


@value
class Line:
    """One instruction as it was written: `KEYWORD --flag… rest`."""

    keyword: str
    flags: tuple[str, ...]
    rest: str
    heredocs: tuple[Heredoc, ...]
    first: int
    last: int
    # All of it but heredocs, for error messages and lists of steps.
    text: str
    # The keyword as it was typed.
    spelling: str = ""


@value
class Document:
    """A parsed Dockerfile."""

    lines: tuple[Line, ...]
    directives: Mapping[str, str]
    escape: str
    # The lines that are empty within a continued one.
    empty_continuations: tuple[int, ...] = ()


def parse(text: str) -> Document:
    """Read a Dockerfile. Raises DockerfileError."""
    rows = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    directives, start = _read_directives(rows)
    escape = directives.get("escape", "\\")
    if escape not in ("\\", "`"):
        number = next(n for n, row in enumerate(rows, 1) if "escape" in row.lower())
        raise syntax_error(f"invalid ESCAPE '{escape}'. Must be ` or \\", number)
    reader = _Reader(rows, start, escape)
    lines = reader.read()
    if not lines:
        raise syntax_error("file with no instructions", 1)
    return Document(
        lines=tuple(lines),
        directives=directives,
        escape=escape,
        empty_continuations=tuple(reader.empty),
    )


def _read_directives(rows: Sequence[str]) -> tuple[dict[str, str], int]:
    """The directives at the top, and the number of rows they take."""
    found: dict[str, str] = {}
    for number, row in enumerate(rows):
        if number == 0 and row.startswith("#!"):
            continue
        match = _DIRECTIVE.match(row.strip())
        name = match[1].lower() if match else ""
        if match is None or name not in _DIRECTIVES:
            return found, number
        if name in found:
            raise syntax_error(f"only one {name} parser directive can be used", number + 1)
        found[name] = match[2]
    return found, len(rows)


class _Reader:
    """The rows of a file, put together to instructions."""

    def __init__(self, rows: Sequence[str], start: int, escape: str) -> None:
        self._rows = rows
        self._next = start
        self._escape = escape
        # An escape at the end that is not itself escaped.
        self._continued = re.compile(
            rf"(?:^|(?<=[^{re.escape(escape)}])){re.escape(escape)}[ \t]*$"
        )
        self.empty: list[int] = []

    def read(self) -> list[Line]:
        lines = []
        while self._next < len(self._rows):
            row = self._rows[self._next].lstrip()
            if not row.rstrip() or row.startswith("#"):
                self._next += 1
                continue
            lines.append(self._instruction())
        return lines

    def _instruction(self) -> Line:
        first = self._next + 1
        text = self._logical_line()
        spelling, flags, rest = _split(text, self._escape)
        keyword = spelling.upper()
        heredocs: list[Heredoc] = []
        asks = keyword in _WITH_HEREDOCS or (
            keyword == "ONBUILD" and rest.upper().startswith(_WITH_HEREDOCS)
        )
        if asks and "<<" in rest:
            heredocs = [self._body(*opening, first) for opening in self._openings(rest)]
        return Line(
            keyword=keyword,
            flags=flags,
            rest=rest,
            heredocs=tuple(heredocs),
            first=first,
            last=self._next,
            text=text,
            spelling=spelling,
        )

    def _logical_line(self) -> str:
        pieces: list[str] = []
        is_open = True
        while is_open and self._next < len(self._rows):
            row = self._rows[self._next]
            self._next += 1
            bare = row.lstrip()
            if pieces and bare.startswith("#"):
                continue
            if pieces and not bare.rstrip():
                self.empty.append(self._next)
                continue
            row = row.rstrip("\r") if pieces else bare
            match = self._continued.search(row)
            is_open = match is not None
            pieces.append(row[: match.start()] if match else row)
        return "".join(pieces).strip()

    def _openings(self, rest: str) -> list[tuple[str, bool, bool]]:
        """The heredocs that a line announces: name, whether to expand, whether to chomp."""
        found = []
        for word in self._words(rest, None):
            match = _HEREDOC.match(word)
            if match is None or not match[3]:
                continue
            names = self._words(match[3], {})
            if len(names) == 1:
                found.append((names[0], names[0] == match[3], bool(match[2])))
        return found

    def _words(self, text: str, env: Mapping[str, str] | None) -> list[str]:
        """The words of what the shell may read otherwise: none, where quotes stay open."""
        try:
            return process_words(text, env, escape=self._escape)
        except WordError:
            return []

    def _body(self, name: str, expand: bool, chomp: bool, first: int) -> Heredoc:
        content: list[str] = []
        while self._next < len(self._rows):
            row = self._rows[self._next]
            self._next += 1
            if (row.lstrip("\t") if chomp else row) == name:
                return Heredoc(name=name, content="".join(content), expand=expand, chomp=chomp)
            content.append(f"{row}\n")
        raise syntax_error("unterminated heredoc", first, len(self._rows))


def bodies(heredocs: Sequence[Heredoc]) -> str:
    """What stands below the line that announces these heredocs, and the end of that line."""
    return "".join(f"\n{each.content}{each.name}" for each in heredocs)


def is_heredoc(word: str) -> bool:
    """Whether a text is one word, and that announces a heredoc."""
    match = _HEREDOC.match(word)
    return match is not None and bool(match[3]) and not any(map(str.isspace, match[3]))


def _split(text: str, escape: str) -> tuple[str, tuple[str, ...], str]:
    """The keyword, the flags after it, and what follows them."""
    keyword, _, rest = re.sub(r"\s", " ", text, count=1).partition(" ")
    flags: list[str] = []
    rest = rest.strip()
    while rest.startswith("--"):
        word, rest = _take_flag(rest, escape)
        if word == "--":
            break
        flags.append(word)
    return keyword, tuple(flags), rest


def _take_flag(text: str, escape: str) -> tuple[str, str]:
    """The first word, with its quotes undone, and what follows it."""
    word: list[str] = []
    quote = ""
    position = 0
    while position < len(text):
        character = text[position]
        if not quote and character.isspace():
            break
        if character == escape and quote != "'" and position + 1 < len(text):
            position += 1
            word.append(text[position])
        elif quote:
            if character == quote:
                quote = ""
            else:
                word.append(character)
        elif character in "'\"":
            quote = character
        else:
            word.append(character)
        position += 1
    return "".join(word), text[position:].strip()
