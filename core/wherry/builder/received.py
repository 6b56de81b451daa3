"""Contexts of another host, which a build gets piece by piece: see `wherry.builder.offer`.

A copy of each is kept from one build to the next, so that what has not changed is not
sent again. A build has its copy for itself; another of the same context that runs at the
same time has one of its own.

    DATA/build-contexts/KEY[.N]/    the lock of a copy
        entries.json                what the context holds
        state.json                  which files are here; without it the copy is worth nothing
        receiving                   there while files come: where it has stayed nobody knows
                                    what comes next
        files/
"""

from __future__ import annotations

import os
import posixpath
import re
import struct
import sys

from wherry import origin, paths
from wherry.builder.context import Context, ImageLayout
from wherry.builder.ignore import glob_expression
from wherry.builder.offer import DIRECTORY, FAILED, FILE, HARD_LINK, LINK, Entry, ranges
from wherry.builder.tree import is_pattern
from wherry.container.archive import attribute_names
from wherry.container.copy import remove_tree
from wherry.errors import (
    Conflict,
    CorruptState,
    MachineError,
    UsageError,
    WherryError,
    from_json,
)
from wherry.files import Lock, make_dir, read_json, remove_file, write_all, write_atomic, write_json
from wherry.human import human_size
from wherry.lean import load_json, posix
from wherry.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from wherry.builder.request import BuildRequest

# How many copies are kept.
_KEPT = 8
# How many runs of files are asked for at a time.
_RUNS = 1000
_STDIN = 0
_LENGTH = struct.Struct(">I")
# As many as the kernel follows: path_resolution(7).
_MOST_LINKS = 40


def receive(request: BuildRequest) -> BuildRequest:
    """`request` with what its host offers, on our standard input; see `sending.offer`."""
    try:
        return _with_offer(request)
    except (AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
        raise MachineError(
            "the machine has another release of wherry than this host: what is sent to be built"
            " makes no sense to it",
            hint="`wherry machine restart` gives it this one",
        ) from error


def _with_offer(request: BuildRequest) -> BuildRequest:
    (length,) = struct.unpack(">Q", _receive(8))
    told = load_json(_receive(length))
    opened = _open_contexts(told["contexts"])
    # Behind those that have a name are those of caches.
    contexts = dict(zip(told["names"], opened, strict=False))
    layouts = {
        name: ImageLayout(contexts[name], descriptor)
        for name, descriptor in told["layouts"].items()
    }
    return replace(
        request,
        dockerfile=told["dockerfile"],
        dockerfile_name=told["dockerfile_name"],
        epoch=told["epoch"],
        context=contexts.pop("", request.context),
        contexts={**request.contexts, **contexts, **layouts},
        caches_from=tuple(
            replace(cache, found=_found(each, opened)) if each else cache
            for cache, each in zip(request.caches_from, told["caches"], strict=True)
        ),
    )


def _found(told: Mapping[str, Any], opened: Sequence[SentContext]) -> ImageLayout | WherryError:
    if "error" in told:
        return from_json(told["error"])
    return ImageLayout(opened[told["context"]], told["descriptor"])


def _open_contexts(offered: Iterable[dict[str, Any]]) -> list[SentContext]:
    """Contexts of the host; their copies are ours until this process ends."""
    found = []
    for number, told in enumerate(offered):
        if not re.fullmatch("[0-9a-f]{32}", told["key"]):
            raise CorruptState(f"no key of a context: {told['key']!r}")
        copy = _Copy(_claim(told["key"]))
        copy.change_to([Entry.from_json(fields) for fields in told["entries"]])
        found.append(SentContext(number, copy))
    _forget_old()
    return found


class SentContext(Context):
    """A context of another host."""

    def __init__(self, number: int, copy: _Copy) -> None:
        super().__init__(copy.files)
        self._number = number
        self._copy = copy

    def lacks(self, patterns: Sequence[str], /) -> bool:
        return bool(self._copy.lacks(patterns))

    def load(self, patterns: Sequence[str], /) -> dict[str, Any]:
        """Have these files sent. Raises what kept the host from sending them.

        Other steps may do so at the same time, in processes of their own.
        """
        # There is one stream for all of them.
        with Lock(f"{self._copy.place}/stream"):
            self._copy.look_again()
            lacking = self._copy.lacks(patterns)
            runs = ranges(lacking)
            self._copy.begin()
            for start in range(0, len(runs), _RUNS):
                some = runs[start : start + _RUNS]
                origin.ask(ask="files", context=self._number, files=some)
                self._copy.receive(some)
            total = self._copy.end()
            print(f"transferring context: {human_size(total)}")
            return {}

    def loaded(self) -> None:
        self._copy.look_again()


class _Copy:
    """What is here of a context."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.files = f"{place}/files"
        self._told = f"{place}/entries.json"
        self._state = f"{place}/state.json"
        self._mark = f"{place}/receiving"
        self._entries: list[Entry] = []
        self._numbered: list[Entry] = []
        self._links: list[Entry] = []
        # The paths of the files that are here.
        self._here: set[str] = set()
        self._size = 0
        self._problem: UsageError | None = None

    def change_to(self, entries: Sequence[Entry]) -> None:
        """Make it a copy of `entries`, as far as it can be without contents."""
        _check(entries)
        if not (os.path.exists(self._state) and os.path.exists(self._told)):
            remove_file(self._state)
            remove_tree(self.files)
        make_dir(self.files, 0o755)
        self.look_again()
        remove_file(self._mark)
        old = {entry.path: entry for entry in self._known()}
        new = {entry.path: entry for entry in entries}
        remove_file(self._state)
        for path in sorted(old, reverse=True):
            if not _is_same(old[path], new.get(path)):
                self._here.discard(path)
                self._remove(old[path])
        for entry in entries:
            before = old.get(entry.path)
            if entry.kind == DIRECTORY:
                make_dir(f"{self.files}/{entry.path}")
            elif entry.kind == FILE:
                if entry.path in self._here and entry != before:
                    _dress(f"{self.files}/{entry.path}", entry)
            elif not _is_same(entry, before):
                self._make(entry)
        self._entries = list(entries)
        self._numbered = [entry for entry in entries if entry.kind == FILE]
        self._links = [entry for entry in entries if entry.kind == HARD_LINK]
        write_json(self._told, [each.to_json() for each in entries])
        self.save()

    def _known(self) -> list[Entry]:
        """What the context held that this is a copy of."""
        if not os.path.exists(self._state):
            return []
        return [Entry.from_json(fields) for fields in read_json(self._told)]

    def look_again(self) -> None:
        """See what others have fetched."""
        try:
            self._here = set(read_json(self._state)["here"])
        except FileNotFoundError:
            self._here = set()

    def save(self) -> None:
        """Keep in mind what is here, and give directories their modes and times."""
        for entry in reversed(self._entries):
            if entry.kind == DIRECTORY:
                _dress(f"{self.files}/{entry.path}", entry)
        write_json(self._state, {"here": sorted(self._here)})

    def lacks(self, patterns: Sequence[str]) -> list[int]:
        """Which files that COPY would take for `patterns` are not here, by number."""
        links = {entry.path: entry.target for entry in self._entries if entry.kind == LINK}
        reached = _reach(patterns, links)
        by_links = {each.target for each in self._links if reached.fullmatch(each.path)}
        return [
            number
            for number, entry in enumerate(self._numbered)
            if entry.path not in self._here
            and (entry.path in by_links or reached.fullmatch(entry.path))
        ]

    def begin(self) -> None:
        """Before files come. Raises MachineError where another step's have not all been taken."""
        if os.path.exists(self._mark):
            raise MachineError("another step was stopped while its files of the context came")
        write_atomic(self._mark, b"")
        self._size = 0

    def receive(self, runs: Sequence[Sequence[int]]) -> None:
        """Take the contents of files that were asked for."""
        for first, last in runs:
            for entry in self._numbered[first : last + 1]:
                try:
                    self._size += self._take(entry)
                    self._here.add(entry.path)
                except UsageError as error:
                    self._problem = self._problem or error

    def end(self) -> int:
        """When they have come; how many bytes they had. Raises what the host could not read."""
        for each in self._links:
            self._make(each)
        self.save()
        remove_file(self._mark)
        if self._problem is not None:
            raise self._problem
        return self._size

    def _take(self, entry: Entry) -> int:
        file, size = _new(f"{self.files}/{entry.path}"), 0
        try:
            (length,) = _LENGTH.unpack(_receive(4))
            while length:
                if length == FAILED:
                    (length,) = _LENGTH.unpack(_receive(4))
                    raise UsageError(f"error checking context: {_receive(length).decode()}")
                size += length
                # A length follows in any case: to ask for both takes half as long.
                data = memoryview(_receive(length + 4))
                write_all(file, data[:length])
                (length,) = _LENGTH.unpack(data[-4:])
            os.chmod(file, entry.mode)
            _annotate(file, entry)
            os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(file)
        return size

    def _make(self, entry: Entry) -> None:
        """A link or a named pipe."""
        path = f"{self.files}/{entry.path}"
        if entry.kind == HARD_LINK:
            if entry.target in self._here:
                remove_file(path)
                os.link(f"{self.files}/{entry.target}", path)
            return
        if entry.kind == LINK:
            os.symlink(entry.target, path)
        else:
            posix.mkfifo(path)
            os.chmod(path, entry.mode)
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)

    def _remove(self, entry: Entry) -> None:
        path = f"{self.files}/{entry.path}"
        if entry.kind == DIRECTORY:
            remove_tree(path)
        else:
            remove_file(path)


def _is_same(one: Entry, other: Entry | None) -> bool:
    """Whether nothing has to be done to make one of the other."""
    if other is None or one.kind != other.kind:
        return False
    return one.kind == DIRECTORY or one.has_content_of(other)


def _dress(file: str | int, entry: Entry) -> None:
    """Give a file the mode, the time and the attributes that it has on the host."""
    os.chmod(file, entry.mode)
    if sys.platform == "linux":
        notes = dict(entry.notes)
        for name in attribute_names(file):
            if name not in notes:
                os.removexattr(file, name)
    _annotate(file, entry)
    os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))


def _annotate(file: str | int, entry: Entry) -> None:
    if sys.platform == "linux":
        for name, text in entry.notes:
            os.setxattr(file, name, bytes.fromhex(text))


def _new(path: str) -> int:
    """A descriptor of a new file, in the place of what is there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, 0o600)


def _check(entries: Iterable[Entry]) -> None:
    """Refuse entries that would be outside of the copy. Raises CorruptState."""
    directories, files = {""}, set()
    for entry in entries:
        above, name = posixpath.split(entry.path)
        if above not in directories or name in ("", ".", ".."):
            raise CorruptState(f"no path of a context: {entry.path!r}")
        if entry.kind == DIRECTORY:
            directories.add(entry.path)
        elif entry.kind == FILE:
            files.add(entry.path)
        elif entry.kind == HARD_LINK and entry.target not in files:
            raise CorruptState(f"no file of a context: {entry.target!r}")


def _reach(patterns: Sequence[str], links: Mapping[str, str]) -> re.Pattern[str]:
    """What paths COPY would look at for `patterns`, where `links` lead to their targets."""
    expressions = []
    for pattern in patterns:
        clean = posixpath.normpath(f"/{pattern}").lstrip("/")
        if not is_pattern(clean):
            clean = _resolve(clean, links)
        elif links:
            clean = ""  # who knows where they lead
        if not clean:
            return re.compile(".*", re.DOTALL)
        expressions.append(f"{_expression(clean)}(?:/.*)?")
    return re.compile("|".join(expressions), re.DOTALL)


def _resolve(path: str, links: Mapping[str, str]) -> str:
    """Where a path leads within the context."""
    real: list[str] = []
    waiting = path.split("/")
    followed = 0
    while waiting:
        part = waiting.pop(0)
        if part == "..":
            del real[-1:]
        elif part not in ("", "."):
            real.append(part)
        target = links.get("/".join(real))
        if target is not None and followed < _MOST_LINKS:
            followed += 1
            real = [] if target.startswith("/") else real[:-1]
            waiting = [*target.split("/"), *waiting]
    return "/".join(real)


def _expression(pattern: str) -> str:
    if not is_pattern(pattern):
        return re.escape(pattern)
    try:
        return glob_expression(pattern)
    except ValueError as error:
        raise UsageError(str(error)) from error


# ---- the place of a copy ----


def _claim(key: str) -> str:
    """A place for a copy that no other build has; ours until this process ends."""
    number = 0
    while True:
        path = os.path.join(paths.build_contexts(), f"{key}.{number}" if number else key)
        make_dir(path)
        try:
            lock = Lock(path, wait=False).__enter__()
        except (Conflict, FileNotFoundError):
            number += 1
            continue
        _held.append(lock)
        os.utime(path)
        return path


# The kernel lets go of them when we end.
_held: list[Lock] = []


def _slots() -> list[str]:
    """The places of copies, the one that was used last first."""
    directory = paths.build_contexts()
    try:
        found = [os.path.join(directory, name) for name in os.listdir(directory)]
        return sorted(found, key=os.path.getmtime, reverse=True)
    except FileNotFoundError:
        return []


def _forget_old() -> None:
    for path in _slots()[_KEPT:]:
        try:
            with Lock(path, wait=False):
                remove_tree(path)
        except (Conflict, FileNotFoundError):
            continue


# What was read and not yet taken. Nothing is sent that is not asked for: it is empty when
# another process may read.
_read = bytearray()


def _receive(size: int) -> bytes:
    """So many bytes of our standard input."""
    while len(_read) < size:
        piece = os.read(_STDIN, max(size - len(_read), 1 << 16))
        if not piece:
            raise MachineError("the host has stopped sending the context")
        _read.extend(piece)
    data = bytes(_read[:size])
    del _read[:size]
    return data
