"""Images built of the same contexts by each engine."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from bench import engines
from bench.measure import compare, must, timed

if TYPE_CHECKING:
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
    """A context of many small files."""
    context = _context(stage, "small", _COPY)
    tree = f"{context}/tree"
    if not os.path.exists(tree):
        for number in range(SMALL_FILES):
            directory = f"{tree}/{number // 200}"
            os.makedirs(directory, exist_ok=True)
            with open(f"{directory}/{number}", "wb") as file:
                file.write(b"%d\n" % number * 40)
    return _compare(
        "build, 20000 small files", stage, context, "--no-cache", few=True, seconds=DEAR_SECONDS
    )


def build_large_file(stage: Stage) -> Comparison:
    """One large file, which no compression makes smaller."""
    context = _context(stage, "large", _COPY)
    path = f"{context}/tree"
    if not os.path.exists(path):
        with open(path, "wb") as file:
            for _ in range(LARGE_BYTES >> 20):
                file.write(os.urandom(1 << 20))
    return _compare("build, 500 MB", stage, context, "--no-cache", few=True, copied=path)


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
) -> Comparison:
    """`copied` is a file that cp is to copy, too; `seconds` as in `compare`."""

    def build(engine: engines.Engine) -> Sample:
        return lambda: timed(lambda: engine(*_words(engine, context, *options)))

    contestants: dict[str, Sample] = {}
    for engine in stage.rootless if rootless else stage.root:
        contestants[engine.name] = build(engine)
        if isinstance(engine, engines.Podman):
            contestants["buildah"] = build(engines.Buildah(engine))
    if copied:
        contestants["cp"] = lambda: _copy(copied, f"{stage.directory}/copy")
    rounds = max(3, stage.rounds // 3) if few else stage.rounds
    return compare(title, contestants, rounds, seconds=seconds)


def _copy(source: str, target: str) -> float:
    taken = timed(lambda: must(["cp", source, target]))
    os.remove(target)
    return taken
