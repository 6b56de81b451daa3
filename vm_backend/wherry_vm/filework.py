"""Work with files, timed: what `wherry machine bench` has the guest do in a directory.

What is to be looked at is made by the host where the directory is shared: the guest has
seen nothing of it then.
"""

from __future__ import annotations

import json
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FILES = 200
_SMALL = 1 << 10
_LARGE = 16 << 20
_CHUNK = 1 << 20
_DIRECTORIES = 10
_IN_EACH = 50

_READY = "ready"
_PATIENCE = 30
_CACHES = "/proc/sys/vm/drop_caches"


def prepare(directory: str) -> None:
    """Make what `measure` looks at."""
    for name in ("made", "known", "read", "tree"):
        os.mkdir(os.path.join(directory, name))
    for name in ("known", "read"):
        _make(os.path.join(directory, name), _FILES)
    for number in range(_DIRECTORIES):
        path = os.path.join(directory, "tree", str(number))
        os.mkdir(path)
        _make(path, _IN_EACH)
    with open(os.path.join(directory, "large"), "wb") as file:
        for _ in range(_LARGE // _CHUNK):
            file.write(os.urandom(_CHUNK))
    _make_file(os.path.join(directory, _READY))


def measure(directory: str) -> dict[str, tuple[float, str]]:
    """How fast each kind of work goes, with its unit."""
    _wait_until_mounted(directory)
    many = _DIRECTORIES * _IN_EACH
    works: tuple[tuple[str, Callable[[str], object], float, str], ...] = (
        ("files created", _create, _FILES, "1/s"),
        ("files examined", _examine, _FILES, "1/s"),
        ("files listed and examined", _walk, many, "1/s"),
        ("small files read", _read_small, _FILES, "1/s"),
        ("files removed", _remove, _FILES, "1/s"),
        ("large file written", _write_large, _LARGE / 1e6, "MB/s"),
        ("large file read", _read_large, _LARGE / 1e6, "MB/s"),
    )
    found = {}
    for name, work, amount, unit in works:
        began = time.perf_counter()
        work(directory)
        found[name] = (amount / (time.perf_counter() - began), unit)
    return found


def _create(directory: str) -> None:
    _make(os.path.join(directory, "made"), _FILES)


def _examine(directory: str) -> None:
    for number in range(_FILES):
        os.lstat(os.path.join(directory, "known", str(number)))


def _walk(directory: str) -> None:
    """What `git status` does."""
    for path, _, names in os.walk(os.path.join(directory, "tree")):
        for name in names:
            os.lstat(os.path.join(path, name))


def _read_small(directory: str) -> None:
    for number in range(_FILES):
        with open(os.path.join(directory, "read", str(number)), "rb", buffering=0) as file:
            file.read(_CHUNK)


def _remove(directory: str) -> None:
    for number in range(_FILES):
        os.unlink(os.path.join(directory, "made", str(number)))


def _write_large(directory: str) -> None:
    data = os.urandom(_CHUNK)
    with open(os.path.join(directory, "written"), "wb", buffering=0) as file:
        for _ in range(_LARGE // _CHUNK):
            file.write(data)
        os.fsync(file.fileno())


def _read_large(directory: str) -> None:
    with open(os.path.join(directory, "large"), "rb", buffering=0) as file:
        while file.read(_CHUNK):
            pass


def _make(directory: str, count: int) -> None:
    for number in range(count):
        _make_file(os.path.join(directory, str(number)))


def _make_file(path: str) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(b"x" * _SMALL)


def _wait_until_mounted(directory: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not os.path.exists(os.path.join(directory, _READY)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{directory} was not mounted within {_PATIENCE} s")
        time.sleep(0.05)


def main(directory: str, *words: str) -> None:
    """Measure, in the guest; with "own" as a word in a directory of its own disk."""
    if sys.platform == "linux" and "own" in words:
        os.makedirs(directory)
        prepare(directory)
        os.sync()
        with open(_CACHES, "w", encoding="ascii") as file:
            file.write("3")
    print(json.dumps(measure(directory)))


if __name__ == "__main__":
    main(*sys.argv[1:])
