"""`.dockerignore`: which paths of a context are left out. Pure."""

from __future__ import annotations

import posixpath
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def glob_expression(pattern: str) -> str:
    """A pattern of Go's filepath.Match, with `**`, as a regular expression.

    Raises ValueError for a malformed one.
    """
    out: list[str] = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*" and pattern.startswith("*", position):
            position += 1
            if pattern.startswith("/", position):
                position += 1
                out.append("(?:.*/)?")
            else:
                out.append(".*")
        elif character == "*":
            out.append("[^/]*")
        elif character == "?":
            out.append("[^/]")
        elif character == "[":
            end = pattern.find("]", position + (pattern[position : position + 1] in ("^", "]")))
            if end < 0:
                raise ValueError(f"syntax error in pattern {pattern!r}")
            inner = pattern[position:end].replace("\\", "\\\\").replace("[", "\\[")
            out.append(f"[{inner}]")
            position = end + 1
        elif character == "\\":
            if position >= len(pattern):
                raise ValueError(f"syntax error in pattern {pattern!r}")
            out.append(re.escape(pattern[position]))
            position += 1
        else:
            out.append(re.escape(character))
    return "".join(out)


class Ignore:
    """The patterns of an ignore file: the last that matches a path, or what holds it, decides."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """`patterns` are clean ones, with `!` before an exception."""
        self._patterns: list[tuple[bool, re.Pattern[str], str]] = []
        for pattern in patterns:
            is_exception = pattern.startswith("!")
            bare = pattern[is_exception:]
            # What lies below a path that matches, matches.
            expression = re.compile(f"(?:{glob_expression(bare)})(?:/.*)?", re.DOTALL)
            self._patterns.append((is_exception, expression, bare))
        self.has_exceptions = any(is_exception for is_exception, *_ in self._patterns)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def excludes(self, path: str) -> bool:
        """Whether `path`, which begins with no slash, is left out."""
        is_out = False
        for is_exception, expression, _ in self._patterns:
            if is_out == is_exception and expression.fullmatch(path):
                is_out = not is_exception
        return is_out

    def may_hold(self, directory: str) -> bool:
        """Whether something in an excluded directory may be an exception."""
        if not self.has_exceptions:
            return False
        prefix = f"{directory}/"
        for is_exception, _, pattern in self._patterns:
            if is_exception and (
                pattern.startswith(prefix) or any(mark in pattern for mark in "*?[")
            ):
                return True
        return False


def read_ignore(text: str) -> Ignore:
    """The patterns of an ignore file. Raises ValueError for a malformed one."""
    patterns = []
    for row in text.removeprefix("\ufeff").split("\n"):
        pattern = row.strip()
        # A comment begins where its line does.
        if not pattern or row.startswith("#"):
            continue
        mark = "!" if pattern.startswith("!") else ""
        if pattern == "!":
            raise ValueError('illegal exclusion pattern: "!"')
        bare = posixpath.normpath(pattern[len(mark) :].strip()).lstrip("/")
        if bare and bare != ".":
            patterns.append(mark + bare)
    return Ignore(patterns)
