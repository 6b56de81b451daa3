"""The host's side of a build that is carried out elsewhere: it sends what is asked for."""

from __future__ import annotations

import os
import struct
import sys

from wherry.builder.context import Context, ImageLayout
from wherry.builder.directories import Arrivals
from wherry.builder.exchange import find_layout
from wherry.builder.offer import FAILED, FILE, list_context
from wherry.builder.tree import DIRECTORY, open_below
from wherry.container.copy import open_file
from wherry.errors import AccessDenied, WherryError, to_json
from wherry.lean import dump_json, sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from wherry.builder.exchange import Cache
    from wherry.builder.request import BuildRequest

_PIECE = 1 << 18


def offer(request: BuildRequest) -> Sender:
    """What `request` has of this host: the Dockerfile, and the directories it names."""
    layouts = {
        name: each for name, each in request.contexts.items() if isinstance(each, ImageLayout)
    }
    given = {
        "": request.context,
        **request.contexts,
        **{name: each.context for name, each in layouts.items()},
    }
    directories = {
        name: context
        for name, context in given.items()
        if isinstance(context, Context) and context.directory
    }
    offered = [Offered(context) for context in directories.values()]
    return Sender(
        offered,
        {
            "dockerfile": request.dockerfile,
            "dockerfile_name": request.dockerfile_name,
            "epoch": request.epoch,
            "names": list(directories),
            "layouts": {name: each.descriptor for name, each in layouts.items()},
            "caches": list(_offer_caches(request.caches_from, offered)),
        },
        request.ssh,
        Arrivals((cache.place, cache.tag) for cache in request.caches_to if cache.kind == "local"),
    )


def _offer_caches(caches: Iterable[Cache], offered: list[Offered]) -> Iterator[Any]:
    """What the other side is told of caches; their directories join those that are offered."""
    numbers: dict[str, int] = {}
    for cache in caches:
        if cache.kind != "local":
            yield None
            continue
        try:
            layout = find_layout(cache)
            if cache.place not in numbers:
                offered.append(Offered(layout.context))
                numbers[cache.place] = len(offered) - 1
            yield {"context": numbers[cache.place], "descriptor": layout.descriptor}
        except WherryError as error:
            yield {"error": to_json(error)}


class Offered:
    """A directory of this host and what of it a build may have."""

    def __init__(self, context: Context) -> None:
        self.directory = context.directory
        self._place = context.fetched_from or context.directory
        is_fetched = bool(context.fetched_from)
        self._entries = list_context(context.directory, context.ignore, with_digests=is_fetched)
        self.files = [entry.path for entry in self._entries if entry.kind == FILE]

    def to_json(self) -> dict[str, Any]:
        """What the other side is told. Its copy is kept under `key` from one build to the next."""
        return {
            "key": sha256(os.fsencode(self._place)).hexdigest()[:32],
            "entries": [entry.to_json() for entry in self._entries],
        }


class Sender:
    """Standard input of the build elsewhere, and the host's answers to what it asks."""

    def __init__(
        self,
        contexts: Sequence[Offered],
        told: Mapping[str, Any],
        agents: Mapping[str, str],
        arrivals: Arrivals,
    ) -> None:
        """`told` is said beside the contexts: see `offer`. `agents` are asked on behalf of it."""
        from queue import SimpleQueue

        self._contexts = contexts
        self._agents = agents
        self._arrivals = arrivals
        text = dump_json({**told, "contexts": [each.to_json() for each in contexts]}).encode()
        self._pieces: Iterator[bytes] = iter((struct.pack(">Q", len(text)), text))
        self._left = bytearray()
        self._asked: SimpleQueue[tuple[Offered, list[str]]] = SimpleQueue()

    def read(self, size: int) -> bytes:
        """What comes next, once it is asked for; it never ends of itself."""
        # What is small goes together: every message has its price.
        while len(self._left) < size:
            piece = next(self._pieces, None)
            if piece is not None:
                self._left += piece
            elif self._left:
                break
            else:
                self._pieces = _contents(*self._asked.get())
        data = bytes(self._left[:size])
        del self._left[:size]
        return data

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Send files that were offered, ask an agent, or take what is for a cache.

        Raises AccessDenied for others.
        """
        if question["ask"] == "agent":
            return self._ask_agent(question)
        if question["ask"] == "cache":
            return self._arrivals.ask(question)
        number = int(question["context"])
        if not 0 <= number < len(self._contexts):
            raise AccessDenied(f"no context {number} was offered")
        context = self._contexts[number]
        paths: list[str] = []
        for first, last in question["files"]:
            if not 0 <= first <= last < len(context.files):
                raise AccessDenied(f"no files {first} to {last} were offered")
            paths += context.files[first : last + 1]
        self._asked.put((context, paths))
        return {}

    def close(self) -> None:
        """When the build has ended."""
        self._arrivals.close()

    def _ask_agent(self, question: Mapping[str, Any]) -> dict[str, Any]:
        from binascii import a2b_base64, b2a_base64

        from wherry.builder import agents

        place = self._agents.get(str(question["name"]))
        if place is None:
            raise AccessDenied(f"the command names no agent {question['name']!r}")
        answer = agents.ask(place, a2b_base64(question["message"]))
        return {"message": b2a_base64(answer, newline=False).decode()}


def _contents(context: Offered, paths: Sequence[str]) -> Iterator[bytes]:
    way = _Way(context.directory)
    try:
        for path in paths:
            try:
                yield from _pieces(way.open(path))
            except OSError as error:
                message = f"can't read {path}: {error.strerror}".encode()
                yield struct.pack(">II", FAILED, len(message)) + message
                continue
            yield struct.pack(">I", 0)
    finally:
        way.close()


def _pieces(descriptor: int) -> Iterator[bytes]:
    try:
        while data := os.read(descriptor, _PIECE):
            yield struct.pack(">I", len(data)) + data
    finally:
        os.close(descriptor)


class _Way:
    """Leads to files of a context, and to nothing that has become a link since it was listed."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        # The last file's directory stays open: most have the next file, too.
        self._above: str | None = None
        self._parent = -1

    def open(self, path: str) -> int:
        """A descriptor of a file, to read. Raises OSError."""
        above, _, name = path.rpartition("/")
        if sys.platform == "win32":
            whole = os.path.join(self._directory, *path.split("/"))
            real = os.path.join(os.path.realpath(self._directory), *path.split("/"))
            if os.path.realpath(whole) != real:
                raise OSError(0, "it has become a link", whole)
            return os.open(whole, os.O_RDONLY | os.O_BINARY)
        if above != self._above:
            self.close()
            self._parent = os.open(self._directory, DIRECTORY)
            for each in filter(None, above.split("/")):
                below = open_below(each, self._parent)
                os.close(self._parent)
                self._parent = below
            self._above = above
        return open_file(name, self._parent)

    def close(self) -> None:
        """Hold no directory open."""
        if self._parent >= 0:
            os.close(self._parent)
        self._parent, self._above = -1, None
