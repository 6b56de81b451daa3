"""One stage of a Dockerfile, followed instruction by instruction.

`StageBuild.steps()` yields what takes time, as a `Step` that somebody carries out, and
`Needs` for another stage; what comes back is sent in. All else happens in between.
"""

from __future__ import annotations

import posixpath

from wherry.builder import config as configs
from wherry.builder.errors import placed
from wherry.builder.instructions import Instruction, read_instruction
from wherry.builder.layers import Layers
from wherry.builder.parser import parse
from wherry.builder.words import process_word
from wherry.image.build_cache import key_of
from wherry.values import replace, value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from typing import Any

    from wherry.builder.build import Build
    from wherry.builder.instructions import Stage

    Steps = Generator["Step | Needs", Any, None]

# Build arguments that every RUN knows undeclared, and that no history tells of.
PROXIES = frozenset(
    name
    for one in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (one, one.lower())
)
# The instructions that have a number in `[2/5]`.
COUNTED = ("ADD", "COPY", "RUN", "WORKDIR")


@value
class Step:
    """Something that takes time: carried out in a process of its own, its output shown."""

    # What the list of steps calls it.
    name: str
    # Looks whether there is a result already, quickly; None for no.
    look: Callable[[], dict[str, Any] | None] | None = None
    # In the child: the result, which crosses as JSON. With "cached" it was there already.
    work: Callable[[], dict[str, Any]]
    instruction: Instruction | None = None
    # Steps of the same identity are carried out once.
    identity: str = ""


@value
class Needs:
    """Another stage has to be built before it goes on."""

    stage: StageBuild


def counted(stage: Stage) -> int:
    """How many instructions of a stage have a number."""
    return sum(one.keyword in COUNTED for one in stage.instructions)


class StageBuild:
    """What a stage has come to so far."""

    def __init__(self, build: Build, stage: Stage) -> None:
        self.build = build
        self.stage = stage
        self.layers = Layers()
        # The config document of the image: architecture, config, history, …
        self.document: dict[str, Any] = {}
        self.args: dict[str, str] = {}
        # How many layers, and steps of history, are those of the image that it begins with.
        self.inherited = (0, 0)
        self._number = 0
        self._total = 1 + counted(stage)
        self._cmd_is_own = False
        self.is_done = False

    @property
    def config(self) -> dict[str, Any]:
        """The config that containers of the image get."""
        found: dict[str, Any] = self.document.setdefault("config", {})
        return found

    @property
    def ignores_cache(self) -> bool:
        request = self.build.request
        names = (self.stage.name, str(self.stage.index))
        return request.no_cache or any(name in request.no_cache_filter for name in names)

    def variables(self) -> dict[str, str]:
        """What `$name` stands for: variables of the image, and arguments that came after them."""
        return {**configs.environment(self.config), **self.args}

    def called(self, text: str) -> str:
        """The next counted step, as the list of steps calls it."""
        self._number += 1
        label = self.stage.name or f"stage-{self.stage.index}"
        prefix = f"{label} " if len(self.build.dockerfile.stages) > 1 else ""
        if len(self.build.request.platforms) > 1:
            prefix = f"{self.build.platform} {prefix}"
        width = len(str(self._total))
        return f"[{prefix}{self._number:>{width}}/{self._total}] {text}"

    def remember(self, created_by: str, record: Mapping[str, Any] | None = None) -> None:
        """A line of history; `record` is of the step that may have made a layer."""
        history = self.document.get("history") or ()
        before = history[-1].get("created") if history else None
        moment = record["Created"] if record else before
        # Before a stage of nothing has its first layer, no time is known; see `document_of`.
        created = self.build.created(moment) if moment else ""
        step: dict[str, Any] = {"created": created, "created_by": created_by}
        if record is None or not record["Count"]:
            step["empty_layer"] = True
        self.document["history"] = [*history, step]

    def add_layer(self, created_by: str, record: dict[str, Any]) -> None:
        """The layer of a step goes on top."""
        self.build.records.append(record)
        self.layers = self.layers.with_layer(record)
        self.remember(created_by, record)

    # ---- the stage ----

    def steps(self) -> Steps:
        """All of the stage."""
        from wherry.builder import base

        with placed(self.stage.origin):
            yield from base.steps(self)
        for instruction in (*self._triggers(), *self.stage.instructions):
            with placed(instruction):
                yield from self._follow(instruction)
        self.is_done = True

    def _triggers(self) -> list[Instruction]:
        """What the base image wants to have done in those that are built on it."""
        texts = self.config.pop("OnBuild", None) or ()
        origin = self.stage.origin
        found = []
        for text in texts:
            for line in parse(text).lines:
                instruction = read_instruction(line)
                found.append(replace(instruction, first=origin.first, last=origin.last))
        self._total += sum(one.keyword in COUNTED for one in found)
        return found

    def _follow(self, instruction: Instruction) -> Steps:
        keyword = instruction.keyword
        if keyword == "ARG":
            self._declare(instruction)
        elif keyword == "RUN":
            from wherry.builder import run

            yield from run.steps(self, instruction)
        elif keyword in ("COPY", "ADD"):
            from wherry.builder import copy

            yield from copy.steps(self, instruction)
        elif keyword == "WORKDIR":
            from wherry.builder import copy

            yield from copy.workdir_steps(self, self.expanded(instruction))
        else:
            expanded = self.expanded(instruction)
            text = configs.apply(self.config, expanded, cmd_is_own=self._cmd_is_own)
            self._cmd_is_own = self._cmd_is_own or keyword == "CMD"
            if keyword == "MAINTAINER":
                self.document["author"] = instruction.words[0]
            elif keyword == "ENV":
                self._shadow(expanded)
            self.remember(text)

    def expanded(self, instruction: Instruction) -> Instruction:
        """The instruction with its variables replaced, all by what they were before it."""
        return configs.expanded(instruction, self.variables(), self.build.dockerfile.escape)

    def _shadow(self, instruction: Instruction) -> None:
        """Variables of the image take the place of arguments that came before them."""
        for name, _ in instruction.pairs:
            self.args.pop(name, None)

    def _declare(self, instruction: Instruction) -> None:
        escape = self.build.dockerfile.escape
        for name, default in instruction.pairs:
            found = self.build.request.args.get(name)
            if found is None and default is not None:
                found = process_word(default, self.variables(), escape=escape)
            if found is None:
                found = self.build.globals.get(name)
            if found is not None:
                self.args[name] = found
        self.remember(
            "ARG "
            + " ".join(
                f"{name}={self.args[name]}" if name in self.args else name
                for name, _ in instruction.pairs
            )
        )

    # ---- what steps have in common ----

    def key(self, facts: list[Any], chain: Sequence[str] | None = None) -> str:
        """The cache key of a step on what there is so far, or on the layers `chain`."""
        chain = self.layers.diff_ids if chain is None else chain
        return key_of([*facts, self.build.latest], chain)

    def identity(self, key: str) -> str:
        """What the step that was named last is known by in builds for other platforms.

        Its place is part of it: where the cache is ignored a step is not carried out for another.
        """
        return f"{self.stage.index}.{self._number} {key}"

    def cached_step(
        self,
        name: str,
        facts: list[Any],
        work: Callable[[], dict[str, Any]],
        instruction: Instruction,
    ) -> Step:
        """A step that makes a layer; `facts` say all that decides what becomes of it."""
        key = self.key(facts)
        return Step(
            name=name,
            look=None if self.ignores_cache else lambda: self.build.cached(key),
            work=lambda: self.build.carry_out(key, name, work, always=self.ignores_cache),
            instruction=instruction,
            identity=self.identity(key) if self.ignores_cache else key,
        )

    def path(self, text: str) -> str:
        """An absolute path, as seen from the working directory; a slash at its end stays."""
        ends = text.endswith("/") or text.rpartition("/")[2] in (".", "..")
        path = posixpath.normpath(posixpath.join(configs.working_directory(self.config), text))
        return f"{path.rstrip('/')}/" if ends or path == "/" else path
