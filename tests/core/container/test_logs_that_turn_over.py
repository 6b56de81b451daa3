"""A container's log in json-file format: written, turned over, and read while both happen."""

from __future__ import annotations

import json
import os
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherry.container.logs import LONGEST, LogReader, LogWriter
from wherry.lines import TurnedLines, compress

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Any


def _texts(records: Iterable[dict[str, Any]]) -> list[str]:
    return [record["log"] for record in records]


def test_records_are_dockers(tmp_path: Path) -> None:
    writer = LogWriter(f"{tmp_path}/log")

    writer.write("stderr", b'say "hi"\\\n\ttwo\n')

    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [record["log"] for record in records] == ['say "hi"\\\n', "\ttwo\n"]
    assert {record["stream"] for record in records} == {"stderr"}
    assert records[0]["time"].endswith("Z")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.binary(max_size=200) | st.text('a\n\\\x7f"\u007f\u00e9', max_size=50).map(str.encode)
    )
)
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
) -> None:
    path = f"{tmp_path_factory.mktemp('log')}/log"
    writer = LogWriter(path, 0)
    for chunk in chunks:
        writer.write("stdout", chunk)
    writer.close()

    read = "".join(_texts(LogReader(path).history()))

    assert read == b"".join(chunks).decode(errors="replace")


def test_long_line_is_cut_between_characters(tmp_path: Path) -> None:
    writer = LogWriter(f"{tmp_path}/log")
    text = "x" + "\u20ac" * LONGEST

    writer.write("stdout", f"{text}\n".encode())

    texts = _texts(LogReader(f"{tmp_path}/log").history())
    assert "".join(texts) == f"{text}\n"
    assert len(texts) == 4
    assert [each.endswith("\n") for each in texts] == [False, False, False, True]


def test_unfinished_line_is_recorded_when_it_is_finished(tmp_path: Path) -> None:
    writer = LogWriter(f"{tmp_path}/log")
    reader = LogReader(f"{tmp_path}/log")

    writer.write("stdout", b"begun ")
    before = _texts(reader.more())
    writer.write("stdout", b"ended\nrest")
    writer.finish()

    assert before == []
    assert _texts(reader.more()) == ["begun ended\n", "rest"]


def test_another_writer_goes_on_with_an_unfinished_line(tmp_path: Path) -> None:
    first = LogWriter(f"{tmp_path}/log")
    first.write("stdout", b"begun \xff")
    second = LogWriter(f"{tmp_path}/log")

    second.go_on(json.loads(json.dumps(first.unfinished())))
    second.write("stdout", b" ended\n")

    assert _texts(LogReader(f"{tmp_path}/log").history()) == ["begun \ufffd ended\n"]


def test_files_stay_below_their_size(tmp_path: Path) -> None:
    writer = LogWriter(f"{tmp_path}/log", 1000, 3)

    for number in range(100):
        writer.write("stdout", f"{number}\n".encode())
    writer.write("stdout", "".join(f"{number}\n" for number in range(100, 200)).encode())

    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    texts = _texts(LogReader(f"{tmp_path}/log").history())
    assert texts == [f"{number}\n" for number in range(200 - len(texts), 200)]
    assert len(texts) > 20


# With fewer files, lines of a burst are gone before anybody can look.
@pytest.mark.parametrize(
    ("files", "burst", "compressed"),
    [(1, 1, False), (2, 1, False), (2, 1, True)]
    + [(5, burst, compressed) for burst in (1, 7, 12) for compressed in (False, True)],
)
def test_follower_gets_every_line_once(
    tmp_path: Path, files: int, burst: int, compressed: bool
) -> None:
    """It looks once for each turn of the files at least."""
    writer = LogWriter(f"{tmp_path}/log", 400, files, compressed=compressed)
    reader = LogReader(f"{tmp_path}/log")
    read: list[str] = []

    for start in range(0, 300, burst):
        for number in range(start, start + burst):
            writer.write("stdout", f"{number}\n".encode())
        read += _texts(reader.more())

    assert read == [f"{number}\n" for number in range(len(read))]
    assert len(read) >= 300


@pytest.mark.parametrize("compressed", [False, True])
def test_history_and_what_follows_make_a_whole(tmp_path: Path, compressed: bool) -> None:
    writer = LogWriter(f"{tmp_path}/log", 400, 5, compressed=compressed)
    reader = LogReader(f"{tmp_path}/log")
    for number in range(15):
        writer.write("stdout", f"{number}\n".encode())

    read: list[str] = []
    for record in reader.history():
        # The files turn over while they are read.
        if len(read) < 4:
            writer.write("stdout", f"{15 + len(read)}\n".encode())
        read.append(record["log"])
    writer.write("stdout", b"19\n")
    read += _texts(reader.more())

    assert read == [f"{number}\n" for number in range(20)]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("count", [0, 1, 4, 9, 100])
def test_tail_reaches_across_files_and_goes_on(
    tmp_path: Path, count: int, compressed: bool
) -> None:
    writer = LogWriter(f"{tmp_path}/log", 400, 20, compressed=compressed)
    for number in range(20):
        writer.write("stdout", f"{number}\n".encode())
    reader = LogReader(f"{tmp_path}/log")

    tail = _texts(reader.tail(count))
    writer.write("stdout", b"20\n")

    assert tail == [f"{number}\n" for number in range(max(0, 20 - count), 20)]
    assert _texts(reader.more()) == ["20\n"]


def test_record_that_a_crash_cut_off_costs_no_other(tmp_path: Path) -> None:
    LogWriter(f"{tmp_path}/log").write("stdout", b"one\n")
    with open(f"{tmp_path}/log", "ab") as file:
        file.write(b'{"log":"tw')

    LogWriter(f"{tmp_path}/log").write("stdout", b"three\n")

    assert _texts(LogReader(f"{tmp_path}/log").history()) == ["one\n", "three\n"]


def test_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    reader = LogReader(f"{tmp_path}/log")

    assert _texts(reader.tail(5)) == []
    LogWriter(f"{tmp_path}/log").write("stdout", b"first\n")
    assert _texts(reader.more()) == ["first\n"]


def test_files_that_are_turned_over_are_compressed(tmp_path: Path) -> None:
    writer = LogWriter(f"{tmp_path}/log", 4000, 3, compressed=True)

    for number in range(500):
        writer.write("stdout", f"{number}\n".encode())

    assert sorted(os.listdir(tmp_path)) == ["log", "log.1.gz", "log.2.gz"]
    assert (tmp_path / "log.1.gz").stat().st_size < 1000
    texts = _texts(LogReader(f"{tmp_path}/log").history())
    assert texts == [f"{number}\n" for number in range(500 - len(texts), 500)]
    assert len(texts) > 80


def test_damaged_compressed_file_costs_no_other(tmp_path: Path) -> None:
    writer = LogWriter(f"{tmp_path}/log", 400, 3, compressed=True)
    for number in range(20):
        writer.write("stdout", f"{number}\n".encode())
    packed = (tmp_path / "log.2.gz").read_bytes()
    (tmp_path / "log.2.gz").write_bytes(packed[: len(packed) // 2])

    texts = _texts(LogReader(f"{tmp_path}/log").history())

    assert texts == [f"{number}\n" for number in range(20 - len(texts), 20)]
    assert texts


def test_records_say_what_was_asked_of_the_container(tmp_path: Path) -> None:
    writer = LogWriter(f"{tmp_path}/log", attributes={"tier": "web\x7f"})

    writer.write("stdout", b"one\ntwo\n")

    records = list(LogReader(f"{tmp_path}/log").history())
    assert [record["attrs"] for record in records] == [{"tier": "web\x7f"}] * 2
    assert _texts(records) == ["one\n", "two\n"]


@pytest.mark.parametrize("tail", [-1, 1])
def test_hole_in_a_log_costs_no_memory_and_no_other_record(tmp_path: Path, tail: int) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(32 << 20)
    writer = LogWriter(str(path))
    writer.write("stdout", b"whole\n")
    tracemalloc.start()

    reader = LogReader(str(path))
    records = list(reader.history() if tail < 0 else reader.tail(tail))

    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [record["log"] for record in records] == ["whole\n"]
    assert most < 20 << 20


def test_files_of_the_same_size_time_and_inode_are_two(tmp_path: Path) -> None:
    """As those are that a quick container fills: the inode of the first is free for the next."""
    for number in (2, 1):
        path = tmp_path / f"log.{number}"
        path.write_text(f"line {number}\n")
        os.utime(path, (1, 1))
        compress(str(path))
    (tmp_path / "log").write_text("line 0\n")

    lines = [line.strip() for line in TurnedLines(f"{tmp_path}/log").history()]

    assert lines == [b"line 2", b"line 1", b"line 0"]
