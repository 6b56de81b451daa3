"""The functions that a template can call: Go's own, and docker's."""

from __future__ import annotations

from wherry.cli.template.documents import StringMap, Struct
from wherry.cli.template.encode import encode
from wherry.cli.template.fmt import show, sprint, sprintf, sprintln, type_name
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class CallError(Exception):
    """A function cannot do what it is asked; the evaluator says where."""


@value
class Function:
    """A function and its parameters: `s` string, `i` int, `a` anything, `*` any number more."""

    parameters: str
    call: Callable[..., Any]

    def check_count(self, name: str, count: int) -> None:
        required = self.parameters.rstrip("*")
        variadic = required != self.parameters
        if count == len(required) or (variadic and count > len(required)):
            return
        at_least = "at least " if variadic else ""
        raise CallError(
            f"wrong number of args for {name}: want {at_least}{len(required)} got {count}"
        )


def is_true(value: object) -> bool:
    """What `if` makes of a value: an empty collection is false, a struct never is."""
    return isinstance(value, Struct) or callable(value) or bool(value)


# Comparisons


def _basic_kind(value: object) -> str:
    kind = type_name(value)
    if kind not in ("bool", "int", "float64", "string"):
        raise CallError("invalid type for comparison")
    return kind


def _equal(first: object, *others: object) -> bool:
    if not others:
        raise CallError("missing argument for comparison")
    return any(_equal_pair(first, other) for other in others)


def _equal_pair(first: object, second: object) -> bool:
    if first is None or second is None:
        return first is second
    if type_name(first) != type_name(second):
        raise CallError("incompatible types for comparison")
    if isinstance(first, dict | list | tuple) and not isinstance(first, Struct):
        raise CallError(f"non-comparable type {show(first)}: {type_name(first)}")
    return first == second


def _less(first: Any, second: Any) -> bool:
    kind = _basic_kind(first)
    if kind != _basic_kind(second):
        raise CallError("incompatible types for comparison")
    if kind == "bool":
        raise CallError("invalid type for comparison")
    return bool(first < second)


def _at_most(first: Any, second: Any) -> bool:
    return _less(first, second) or _equal_pair(first, second)


# Collections


def _length(item: Any) -> int:
    if isinstance(item, str):
        return len(item.encode())
    if item is None:
        raise CallError("len of nil pointer")
    if isinstance(item, Struct) or not isinstance(item, dict | list | tuple):
        raise CallError(f"len of type {type_name(item)}")
    return len(item)


def _index(item: Any, *keys: Any) -> Any:
    if item is None:
        raise CallError("index of untyped nil")
    for key in keys:
        item = _index_once(item, key)
    return item


def _index_once(item: Any, key: Any) -> Any:
    if item is None:
        raise CallError("index of untyped nil")
    if isinstance(item, dict) and not isinstance(item, Struct):
        if not isinstance(key, str):
            if key is None:
                raise CallError("value is nil; should be of type string")
            raise CallError(f"value has type {type_name(key)}; should be string")
        return item.get(key, "" if isinstance(item, StringMap) else None)
    if isinstance(item, str):
        item = item.encode()
    elif not isinstance(item, list | tuple):
        raise CallError(f"can't index item of type {type_name(item)}")
    return item[_position(key, len(item) - 1)]


def _slice(item: Any, *bounds: Any) -> Any:
    if item is None:
        raise CallError("slice of untyped nil")
    if len(bounds) > 3:
        raise CallError(f"too many slice indexes: {len(bounds)}")
    if not isinstance(item, str | list | tuple):
        raise CallError(f"can't slice item of type {type_name(item)}")
    if isinstance(item, str) and len(bounds) == 3:
        raise CallError("cannot 3-index slice a string")
    whole = item.encode() if isinstance(item, str) else item
    start, end, *limit = [_position(bound, len(whole)) for bound in bounds] + [0, len(whole)][
        len(bounds) : 2
    ]
    if start > end:
        raise CallError(f"invalid slice index: {start} > {end}")
    if limit and end > limit[0]:
        raise CallError(f"invalid slice index: {end} > {limit[0]}")
    part = whole[start:end]
    return part.decode(errors="replace") if isinstance(part, bytes) else part


def _position(index: Any, last: int) -> int:
    if index is None:
        raise CallError("cannot index slice/array with nil")
    if not isinstance(index, int) or isinstance(index, bool):
        raise CallError(f"cannot index slice/array with type {type_name(index)}")
    if not 0 <= index <= last:
        raise CallError(f"index out of range: {index}")
    return index


def _call(function: Any, *arguments: Any) -> Any:
    if function is None:
        raise CallError("call of nil")
    if not callable(function):
        raise CallError(f"non-function of type {type_name(function)}")
    return function(*arguments)


# Escapes

_HTML = str.maketrans(
    {"\0": "\ufffd", '"': "&#34;", "'": "&#39;", "&": "&amp;", "<": "&lt;", ">": "&gt;"}
)


def _printed(values: tuple[Any, ...]) -> str:
    return sprint(["<no value>" if value is None else value for value in values])


def _html(*values: Any) -> str:
    return _printed(values).translate(_HTML)


def _javascript(*values: Any) -> str:
    return "".join(_javascript_character(character) for character in _printed(values))


def _javascript_character(character: str) -> str:
    if character in "\\'\"":
        return f"\\{character}"
    if character in "<>&=" or not character.isprintable():
        return f"\\u{ord(character):04X}"
    return character


def _url_query(*values: Any) -> str:
    from urllib.parse import quote_plus

    return quote_plus(_printed(values))


# docker's


def _json(value: Any) -> str:
    try:
        return encode(value)
    except ValueError as error:
        raise CallError(str(error)) from error


def _split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else list(text)


def _join(items: Any, separator: str) -> str:
    if items is None:
        return ""
    if isinstance(items, dict) and not isinstance(items, Struct):
        items = sorted(map(show, items.values()))
    if not isinstance(items, list | tuple):
        raise CallError(f"expected slice, got {type_name(items)}")
    return separator.join(map(show, items))


def _title(text: str) -> str:
    """`text` with its words' first letters upper case, all else as it is."""
    starts = [True, *(_separates_words(character) for character in text)]
    return "".join(
        letter.title() if start else letter for letter, start in zip(text, starts, strict=False)
    )


def _separates_words(character: str) -> bool:
    if character.isascii():
        return not character.isalnum() and character != "_"
    return character.isspace()


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


def _truncate(text: str, length: int) -> str:
    if length < 0:
        raise CallError(f"slice bounds out of range [:{length}]")
    return text.encode()[:length].decode(errors="ignore")


def _never(*_: Any) -> Any:
    raise AssertionError("the evaluator calls `and` and `or` itself: they stop early")


BUILTINS: dict[str, Function] = {
    "and": Function(parameters="a*", call=_never),
    "call": Function(parameters="a*", call=_call),
    "eq": Function(parameters="a*", call=_equal),
    "ge": Function(parameters="aa", call=lambda first, second: not _less(first, second)),
    "gt": Function(parameters="aa", call=lambda first, second: not _at_most(first, second)),
    "html": Function(parameters="*", call=_html),
    "index": Function(parameters="a*", call=_index),
    "js": Function(parameters="*", call=_javascript),
    "le": Function(parameters="aa", call=_at_most),
    "len": Function(parameters="a", call=_length),
    "lt": Function(parameters="aa", call=_less),
    "ne": Function(parameters="aa", call=lambda first, second: not _equal_pair(first, second)),
    "not": Function(parameters="a", call=lambda value: not is_true(value)),
    "or": Function(parameters="a*", call=_never),
    "print": Function(parameters="*", call=lambda *values: sprint(values)),
    "printf": Function(parameters="s*", call=lambda text, *values: sprintf(text, values)),
    "println": Function(parameters="*", call=lambda *values: sprintln(values)),
    "slice": Function(parameters="a*", call=_slice),
    "urlquery": Function(parameters="*", call=_url_query),
}


FUNCTIONS: dict[str, Function] = {
    **BUILTINS,
    "join": Function(parameters="as", call=_join),
    "json": Function(parameters="a", call=_json),
    "lower": Function(parameters="s", call=str.lower),
    "pad": Function(parameters="sii", call=_pad),
    "split": Function(parameters="ss", call=_split),
    "title": Function(parameters="s", call=_title),
    "truncate": Function(parameters="si", call=_truncate),
    "upper": Function(parameters="s", call=str.upper),
}


def _same(text: Any, *_: Any) -> Any:
    return text


# In the heading of a table a function gets the column's name, and must leave it readable.
HEADER_FUNCTIONS: dict[str, Function] = {
    **FUNCTIONS,
    "join": Function(parameters="ss", call=_same),
    "json": Function(parameters="s", call=_same),
    "lower": Function(parameters="s", call=_same),
    "split": Function(parameters="ss", call=_same),
    "title": Function(parameters="s", call=_same),
    "truncate": Function(parameters="si", call=_same),
    "upper": Function(parameters="s", call=_same),
}
