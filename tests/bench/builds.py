"""Images built of the same contexts by each engine."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from bench import engines
from bench.measure import compare, must, timed

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.cases import Stage
    from bench.measure import Comparison, Sample

_FIVE_STEPS = """\
FROM busybox
RUN echo one > /one
COPY file /file
ENV A=b
RUN echo two > /two
"""
_COPY = "FROM busybox\nCOPY tree /tree\n"
SMALL_FILES = 20_000
LARGE_BYTES = 500 << 20
# Peers take so long for many files that a few samples are all there is time for.
DEAR_SECONDS = 25


def build_fresh(stage: Stage) -> Comparison:
    """Five steps, two of them RUN, without a cache."""
    return _compare("build, fresh", stage, _five_steps(stage), "--no-cache")


def build_fresh_rootless(stage: Stage) -> Comparison:
    return _compare(
        "build, fresh, rootless", stage, _five_steps(stage), "--no-cache", rootless=True
    )


def build_cached(stage: Stage) -> Comparison:
    """The same once more: `compare` begins with a round that does not count."""
    return _compare("build, cached", stage, _five_steps(stage))


def build_cached_rootless(stage: Stage) -> Comparison:
    return _compare("build, cached, rootless", stage, _five_steps(stage), rootless=True)


def build_small_files(stage: Stage) -> Comparison:
    """A context of many small files, which are others each time."""
    context, write = _small_files(stage)
    return _compare(
        "build, 20000 small files",
        stage,
        context,
        "--no-cache",
        few=True,
        seconds=DEAR_SECONDS,
        prepare=write,
    )


def build_small_files_again(stage: Stage) -> Comparison:
    """The same small files, in a step that is carried out again."""
    context, write = _small_files(stage)
    write()
    return _compare(
        "build, 20000 small files again",
        stage,
        context,
        "--no-cache",
        few=True,
        seconds=DEAR_SECONDS,
    )


def build_large_file(stage: Stage) -> Comparison:
    """One large file, which is another each time, and which no compression makes smaller."""
    context, write = _large_file(stage)
    return _compare(
        "build, 500 MB",
        stage,
        context,
        "--no-cache",
        few=True,
        copied=f"{context}/tree",
        prepare=write,
    )


def build_large_file_again(stage: Stage) -> Comparison:
    """The same large file, in a step that is carried out again."""
    context, write = _large_file(stage)
    write()
    return _compare(
        "build, 500 MB again", stage, context, "--no-cache", few=True, copied=f"{context}/tree"
    )


def _small_files(stage: Stage) -> tuple[str, Callable[[], None]]:
    """A context, and what writes its files anew."""
    context = _context(stage, "small", _COPY)
    tree = f"{context}/tree"
    for number in range(0, SMALL_FILES, 200):
        os.makedirs(f"{tree}/{number // 200}", exist_ok=True)

    def write() -> None:
        mark = os.urandom(8).hex().encode()
        for number in range(SMALL_FILES):
            with open(f"{tree}/{number // 200}/{number}", "wb") as file:
                file.write(mark + b"%d\n" % number * 40)
        os.sync()

    return context, write


def _large_file(stage: Stage) -> tuple[str, Callable[[], None]]:
    """A context, and what writes its file anew."""
    context = _context(stage, "large", _COPY)

    def write() -> None:
        with open(f"{context}/tree", "wb") as file:
            for _ in range(LARGE_BYTES >> 20):
                file.write(os.urandom(1 << 20))
        os.sync()

    return context, write


def _five_steps(stage: Stage) -> str:
    context = _context(stage, "steps", _FIVE_STEPS)
    with open(f"{context}/file", "w") as file:
        file.write("file\n")
    return context


def _context(stage: Stage, name: str, text: str) -> str:
    directory = f"{stage.directory}/context-{name}"
    os.makedirs(directory, exist_ok=True)
    with open(f"{directory}/Dockerfile", "w") as file:
        file.write(text)
    return directory


def _words(engine: engines.Engine, context: str, *options: str) -> tuple[str, ...]:
    own = ("--layers",) if isinstance(engine, engines.Podman) else ()
    return (
        "build",
        "-q",
        "--network=none",
        "-t",
        "built",
        *own,
        *engine.build_options,
        *options,
        context,
    )


def _compare(
    title: str,
    stage: Stage,
    context: str,
    *options: str,
    few: bool = False,
    rootless: bool = False,
    copied: str = "",
    seconds: float = math.inf,
    prepare: Callable[[], None] = lambda: None,
) -> Comparison:
    """`copied` is a file that cp is to copy, too; `seconds` as in `compare`.

    `prepare` comes before each sample, and is no part of it.
    """

    def build(engine: engines.Engine) -> Sample:
        def sample() -> float:
            prepare()
            return timed(lambda: engine(*_words(engine, context, *options)))

        return sample

    def copy() -> float:
        prepare()
        return _copy(copied, f"{stage.directory}/copy")

    contestants: dict[str, Sample] = {}
    for engine in stage.rootless if rootless else stage.root:
        contestants[engine.name] = build(engine)
        if isinstance(engine, engines.Podman):
            contestants["buildah"] = build(engines.Buildah(engine))
    if copied:
        contestants["cp"] = copy
    rounds = max(3, stage.rounds // 3) if few else stage.rounds
    return compare(title, contestants, rounds, seconds=seconds)


def _copy(source: str, target: str) -> float:
    taken = timed(lambda: must(["cp", source, target]))
    os.remove(target)
    return taken
