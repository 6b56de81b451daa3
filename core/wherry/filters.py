"""docker's `--filter KEY=VALUE`: parsed once, then asked of each container, image or volume.

Values of one key are alternatives, and every key has to agree; labels all have to be there.
"""

from __future__ import annotations

from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Filters = dict[str, tuple[str, ...]]


def parse_filters(given: Iterable[str], allowed: Iterable[str]) -> Filters:
    """The values of each key of `given`; `label!` stands for `label!=…`. Raises UsageError."""
    allowed = tuple(allowed)
    filters: Filters = {}
    for text in given:
        if not text:
            continue
        key, equals, wanted = text.partition("=")
        if not equals:
            raise UsageError(
                f"invalid filter {text!r}", hint="a filter is KEY=VALUE: --filter name=web"
            )
        key = key.strip().lower()
        if key not in allowed:
            raise UsageError(
                f"invalid filter {key!r}", hint=f"one can filter by {', '.join(sorted(allowed))}"
            )
        filters[key] = (*filters.get(key, ()), wanted.strip())
    return filters


def matches(filters: Filters, key: str, agrees: Callable[[str], bool]) -> bool:
    """Whether one of the values of `key` agrees; true if there is none."""
    wanted = filters.get(key)
    return not wanted or any(agrees(value) for value in wanted)


def matches_exactly(filters: Filters, key: str, *actual: str) -> bool:
    """Whether one of the values of `key` is one of `actual`."""
    return matches(filters, key, actual.__contains__)


def matches_id(filters: Filters, identity: str, key: str = "id") -> bool:
    """Whether `identity`, with or without its algorithm, begins with a wanted one."""
    digits = identity.rpartition(":")[2]
    return matches(filters, key, lambda prefix: digits.startswith(prefix.rpartition(":")[2]))


def matches_name(filters: Filters, *names: str, key: str = "name") -> bool:
    """Whether one of the wanted regular expressions is found in one of `names`.

    A container's name is known with its slash and without: `^/web$` and `^web$` both mean it.
    """

    def agrees(pattern: str) -> bool:
        return any(
            pattern in form or found(pattern, form)
            for name in names
            for form in (name.removeprefix("/"), f"/{name.removeprefix('/')}")
        )

    return matches(filters, key, agrees)


def found(pattern: str, text: str) -> bool:
    """Whether the regular expression `pattern` is found in `text`; never, if it is none."""
    import re

    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False


def matches_labels(filters: Filters, labels: Mapping[str, str] | None) -> bool:
    """Whether all of `label=…` and none of `label!=…` are among `labels`."""
    labels = labels or {}
    return all(_has_label(labels, wanted) for wanted in filters.get("label", ())) and not any(
        _has_label(labels, unwanted) for unwanted in filters.get("label!", ())
    )


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def parse_boolean(filters: Filters, key: str) -> bool | None:
    """The truth that `dangling=true` or the like asks for; None if it is not given."""
    truths = {_BOOLEANS.get(value.lower()) for value in filters.get(key, ())}
    if not truths:
        return None
    if len(truths) > 1 or None in truths:
        shown = ", ".join(filters[key])
        raise UsageError(f"invalid filter '{key}={shown}'", hint=f"use {key}=true or {key}=false")
    return truths.pop()


_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
