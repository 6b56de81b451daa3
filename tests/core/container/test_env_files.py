"""Environment and label files: raw lines, as docker reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wherry.container.env import merge_env, read_env_file, read_label_file, resolve_env
from wherry.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_lines_are_taken_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes(
        b'\xef\xbb\xbf# a comment\n\n  A=1\r\nQUOTED="x y"\nTAIL=a #b\nHERE\nGONE\nE=\nU=\xc3\xa9\n'
    )

    entries = read_env_file(str(file), {"HERE": "home"})

    assert entries == ["A=1", 'QUOTED="x y"', "TAIL=a #b", "HERE=home", "E=", "U=é"]


def test_a_label_without_a_value_stays(tmp_path: Path) -> None:
    file = tmp_path / "labels"
    file.write_text("a=1\nb\n")

    assert read_label_file(str(file)) == ["a=1", "b"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a b=c\n", "variable 'a b' contains whitespaces"),
        (b"A =1\n", "variable 'A ' contains whitespaces"),
        (b"=c\n", "no variable name on line '=c'"),
        (b"A=1\n\xff=c\n", "invalid utf8 bytes at line 2"),
    ],
)
def test_a_wrong_line_names_the_file(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "env"
    file.write_bytes(content)

    with pytest.raises(UsageError) as caught:
        read_env_file(str(file), {})

    assert caught.value.message == f"invalid env file ({file}): {reason}"


def test_a_missing_file_is_told_as_docker_does() -> None:
    with pytest.raises(UsageError, match="open /no/such/file: no such file or directory"):
        read_env_file("/no/such/file", {})


def test_a_name_alone_is_inherited_or_left_out() -> None:
    assert resolve_env(["A", "B", "C=1", "D="], {"A": "x"}) == ["A=x", "C=1", "D="]
    with pytest.raises(UsageError, match="invalid environment variable: =x"):
        resolve_env(["=x"], {})


def test_the_last_value_of_a_name_counts() -> None:
    assert merge_env(["A=1", "B=1"], ["A=2"]) == ["A=2", "B=1"]
