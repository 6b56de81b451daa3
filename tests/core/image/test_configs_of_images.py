"""What an image says of itself is believed as far as its type is right."""

from __future__ import annotations

from typing import Any

import pytest

from wherry.image.config import is_config
from wherry.lean import load_json

_GOOD: dict[str, Any] = {"rootfs": {"type": "layers", "diff_ids": []}, "os": "linux"}


@pytest.mark.parametrize(
    "document",
    [
        _GOOD,
        {**_GOOD, "config": None},
        {**_GOOD, "config": {"Env": None, "Cmd": ["sh"], "Labels": {"a": "b"}, "Volumes": {}}},
        {**_GOOD, "config": {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 5}}},
        {**_GOOD, "history": [{"created_by": "x", "empty_layer": True}], "unknown": [1, {}]},
    ],
)
def test_config_of_right_types_is_one(document: dict[str, Any]) -> None:
    assert is_config(document)


_WRONG: list[Any] = [
    {"Env": "PATH=/bin"},
    {"Env": [1, None]},
    {"Cmd": "sh"},
    {"Entrypoint": {"a": 1}},
    {"Labels": ["a"]},
    {"Labels": {"a": 5}},
    {"Volumes": ["/a"]},
    {"ExposedPorts": ["80"]},
    {"User": 5},
    {"WorkingDir": 5},
    {"WorkingDir": "/a\0b"},
    {"WorkingDir": "/a\ud800"},
    {"Volumes": {"/\udfff": {}}},
    {"StopSignal": 9},
    {"Healthcheck": []},
    {"Healthcheck": {"Test": ["NONE"], "Timeout": "x"}},
    {"Extra": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]},
]


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"rootfs": None},
        {"rootfs": {"diff_ids": 5}},
        {**_GOOD, "created": 5},
        {**_GOOD, "os": ["linux"]},
        {**_GOOD, "history": "x"},
        {**_GOOD, "config": []},
        *({**_GOOD, "config": config} for config in _WRONG),
    ],
)
def test_config_of_wrong_types_is_none(document: Any) -> None:
    assert not is_config(document)


def test_document_nested_without_end_is_not_json() -> None:
    with pytest.raises(ValueError, match="nested"):
        load_json("[" * 200_000 + "]" * 200_000)
