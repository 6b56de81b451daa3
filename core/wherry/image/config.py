"""The shape of an image's config: whoever made the image wrote it, so nothing of it is believed.

What the OCI image-spec and docker give a type has that type afterwards, or is not there.
A config that says otherwise is nobody's to run: docker refuses it as well.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

# What a document may say at most; those of real images have some ten kilobytes.
_DEEPEST = 32


def is_config(document: Any) -> bool:
    """Whether `document` is an image's config, each part of the type that it has to be."""
    return (
        isinstance(document, dict)
        and _fits(document, _DOCUMENT)
        and isinstance(document.get("rootfs"), dict)
        and _are_texts(document["rootfs"].get("diff_ids"))
        and _has_plain_texts(document, 0)
    )


def _fits(value: Any, shape: Mapping[str, Callable[[Any], bool]]) -> bool:
    """Whether `value` is an object whose entries are as `shape` says, or null."""
    return isinstance(value, dict) and all(
        value.get(key) is None or check(value[key]) for key, check in shape.items()
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _are_labels(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _is_set(value: Any) -> bool:
    return isinstance(value, dict)


def _is_healthcheck(value: Any) -> bool:
    return _fits(value, _HEALTHCHECK)


def _is_settings(value: Any) -> bool:
    return _fits(value, _SETTINGS)


def _is_history(value: Any) -> bool:
    return isinstance(value, list) and all(_fits(entry, _HISTORY) for entry in value)


def _has_plain_texts(value: Any, depth: int) -> bool:
    """Whether all texts can be the kernel's and a terminal's; none of ours is nested like that."""
    if isinstance(value, str):
        return _is_plain(value)
    if isinstance(value, dict):
        return depth < _DEEPEST and all(
            _is_plain(key) and _has_plain_texts(one, depth + 1) for key, one in value.items()
        )
    if isinstance(value, list):
        return depth < _DEEPEST and all(_has_plain_texts(one, depth + 1) for one in value)
    return True


def _is_plain(text: str) -> bool:
    """No NUL, and no half of a character, which JSON can spell (`\\ud800`)."""
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_HEALTHCHECK = {
    "Test": _are_texts,
    "Interval": _is_number,
    "Timeout": _is_number,
    "StartPeriod": _is_number,
    "StartInterval": _is_number,
    "Retries": _is_number,
}
_SETTINGS = {
    "User": _is_text,
    "WorkingDir": _is_text,
    "StopSignal": _is_text,
    "Env": _are_texts,
    "Entrypoint": _are_texts,
    "Cmd": _are_texts,
    "OnBuild": _are_texts,
    "Shell": _are_texts,
    "Labels": _are_labels,
    "Volumes": _is_set,
    "ExposedPorts": _is_set,
    "Healthcheck": _is_healthcheck,
}
_HISTORY = {"created": _is_text, "created_by": _is_text, "comment": _is_text, "author": _is_text}
_DOCUMENT = {
    "architecture": _is_text,
    "os": _is_text,
    "variant": _is_text,
    "created": _is_text,
    "author": _is_text,
    "config": _is_settings,
    "history": _is_history,
}
