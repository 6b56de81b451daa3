"""Where COPY, ADD and `RUN --mount` take files from: directories, stages, images.

A source is found while a stage is followed; it is opened in the process of the step.
"""

from __future__ import annotations

import os
import posixpath
import sys

from wherry.builder.base import image_steps
from wherry.builder.context import Context
from wherry.builder.layers import open_layers
from wherry.builder.stage import Needs, Step
from wherry.builder.tree import DIRECTORY, Tree
from wherry.errors import Unsupported, UsageError, WherryError
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import Any

    from wherry.builder.ignore import Ignore
    from wherry.builder.instructions import Instruction
    from wherry.builder.stage import StageBuild
    from wherry.runtime import Runtime


class Source:
    """A tree of files."""

    # Whether its owners are those of an image, and so what copies keep.
    has_owners = False
    # The layers that it is made of; None for another kind of source.
    diff_ids: tuple[str, ...] | None = None

    def open(self, runtime: Runtime, place: str, exclude: Ignore | None = None) -> Tree:
        """The tree, without what is excluded; `place` is an empty directory to mount on.

        Only within `unshared(mounts=True)`, where it has layers.
        """
        raise NotImplementedError


class DirectorySource(Source):
    """A directory of this host."""

    def __init__(
        self, directory: str, ignore: Ignore | None = None, *, owners: bool = False
    ) -> None:
        self.directory = directory
        self._ignore = ignore
        self.has_owners = owners

    def open(self, runtime: Runtime, place: str, exclude: Ignore | None = None) -> Tree:  # noqa: ARG002
        return Tree(runtime, os.open(self.directory, DIRECTORY), self._ignore, exclude)


class LayersSource(Source):
    """What a stage or an image is made of."""

    has_owners = True

    def __init__(self, diff_ids: tuple[str, ...]) -> None:
        self.diff_ids = diff_ids

    def open(self, runtime: Runtime, place: str, exclude: Ignore | None = None) -> Tree:
        assert self.diff_ids is not None
        return Tree(runtime, open_layers(runtime, self.diff_ids, place), None, exclude)


@value
class Part:
    """Files of one source, and how they are called there."""

    source: Source
    patterns: tuple[str, ...]
    # Whether archives among them are unpacked.
    unpacks: bool = False


def find_source(
    stage: StageBuild, name: str, patterns: Sequence[str], origin: Instruction
) -> Generator[Step | Needs, Any, Source]:
    """What `--from=NAME` means, with what `patterns` take of it; "" is the context.

    `origin` is what asks for it.
    """
    build = stage.build
    given = build.request.context_named(name) if name else build.request.context
    if isinstance(given, Context):
        return (yield from _context_source(given, patterns, origin))
    index = build.stage_named(name, before=stage.stage.index)
    if index is not None:
        other = build.stages[index]
        yield Needs(stage=other)
        return LayersSource(other.layers.diff_ids)
    if build.stage_named(name) is not None and not given:
        raise UsageError(f"cannot copy from stage {name!r}, it needs to be defined before current"
                         f" stage {stage.stage.name or stage.stage.index!r}")  # fmt: skip
    image = yield from image_steps(build, name, str(build.platform), origin)
    return LayersSource(image.diff_ids)


def _context_source(
    context: Context, patterns: Sequence[str], origin: Instruction
) -> Generator[Step | Needs, Any, Source]:
    if not context.directory:
        raise UsageError(
            "there is no context to take files from", hint="the Dockerfile came alone, by `-`"
        )
    if context.lacks(patterns):
        yield Step(
            name="[internal] load build context",
            work=lambda: context.load(patterns),
            instruction=origin,
        )
        context.loaded()
    return DirectorySource(context.directory, context.ignore)


# ---- what ADD brings ----


def unpack_archive(path: str, directory: str) -> None:
    """Unpack a tar archive, compressed or not, into an empty directory."""
    if sys.platform == "linux":
        from wherry.image.decompress import Decompressor
        from wherry.image.unpack import Unpacker

        with Decompressor(open(path, "rb", buffering=0)) as content:
            Unpacker(directory).unpack(content.read)
        return
    raise Unsupported("archives are unpacked on Linux only")


def is_archive(path: str) -> bool:
    """Whether a file is a tar archive, as its first header tells."""
    from wherry.image.decompress import decompressed
    from wherry.image.tar import TarReader

    with open(path, "rb", buffering=0) as file:
        try:
            pieces = decompressed(file.read)
            return next(iter(TarReader(lambda _: next(pieces, b""))), None) is not None
        except WherryError:
            return False


def write_files(directory: str, files: Sequence[tuple[str, str]]) -> list[str]:
    """Put texts into a directory, as COPY has them from heredocs; their names."""
    names = []
    for name, text in files:
        called = posixpath.basename(name) or name
        path = f"{directory}/{called}"
        with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
        os.chmod(path, 0o644)
        os.utime(path, (0, 0))
        names.append(called)
    return names
