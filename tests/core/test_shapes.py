"""What JSON of ours has to look like, and that the types of the code say the same."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from wherry.container import spec
from wherry.container.mount_points import MountPoint
from wherry.container.shape import BODY, RECORD
from wherry.errors import CorruptState
from wherry.files import read_json
from wherry.shapes import fits

if TYPE_CHECKING:
    from pathlib import Path

_POINT = {"Name!": str, "Size": int, "Tags": [str], "Labels": {"*": str}}


@pytest.mark.parametrize(
    "value",
    [
        {"Name": "a"},
        {"Name": "a", "Size": None, "Other": object},
        {"Name": "a", "Size": 3, "Tags": ["x"], "Labels": {"a": "b"}},
    ],
)
def test_what_has_the_shape(value: Any) -> None:
    assert fits(value, _POINT)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"Name": None},
        {"Name": "a", "Size": "3"},
        {"Name": "a", "Tags": "x"},
        {"Name": "a", "Tags": ["x", None]},
        {"Name": "a", "Labels": {"a": 5}},
        {"Name": "a", "Labels": ["a"]},
    ],
)
def test_what_has_not(value: Any) -> None:
    assert not fits(value, _POINT)


def _says_the_same(shape: Any, hint: Any) -> bool:
    """Whether a shape is what a type says."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_typeddict(hint):
        hints = get_type_hints(hint)
        named = {key.rstrip("!"): inner for key, inner in shape.items()}
        return named.keys() == hints.keys() and all(
            _says_the_same(named[key], hints[key]) for key in hints
        )
    if origin is list:
        return isinstance(shape, list) and _says_the_same(shape[0], arguments[0])
    if origin is dict:
        # What an image says of its ports and volumes is not looked into.
        return shape is dict or _says_the_same(shape["*"], arguments[1])
    if origin is Literal:
        return shape is str
    if arguments:  # str | None
        return _says_the_same(shape, arguments[0])
    return bool(shape == hint or (hint is float and shape == (int, float)))


def test_the_shape_of_a_body_is_that_of_its_type() -> None:
    assert _says_the_same(BODY, spec.CreateBody)


def test_the_shape_of_a_mount_is_that_of_its_type() -> None:
    named = {key.rstrip("!") for key in RECORD["Mounts!"][0]}
    assert named == MountPoint.__annotations__.keys()


def _make(path: Path, kind: str) -> None:
    if sys.platform == "win32":
        raise NotImplementedError
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "circle":
        path.symlink_to(path)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        path.write_bytes(kind.encode("latin-1"))


@pytest.mark.skipif(os.name == "nt", reason="these are things of POSIX systems")
@pytest.mark.parametrize(
    "kind", ["directory", "pipe", "device", "circle", "huge", "", "{", "\xff", "[" * 100_000]
)
def test_what_is_no_record_is_damaged_and_nobody_waits_for_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "record.json"
    _make(path, kind)

    with pytest.raises(CorruptState, match="is damaged"):
        read_json(str(path))


def test_record_of_another_shape_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"Name": 5}')

    with pytest.raises(CorruptState, match="it does not hold what it should"):
        read_json(str(path), _POINT)
    assert read_json(str(path)) == {"Name": 5}


def test_link_to_nothing_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.symlink_to("nowhere")

    with pytest.raises(FileNotFoundError):
        read_json(str(path))
