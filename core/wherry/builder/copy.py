"""COPY, ADD and WORKDIR as steps of a stage."""

from __future__ import annotations

import os

from wherry.builder import config as configs
from wherry.builder.copying import (
    Base,
    Placement,
    copy_changes,
    missing_directory,
    read_mode,
)
from wherry.builder.layers import pack
from wherry.builder.tree import DIRECTORY, Tree, digest
from wherry.container.users import lookup_user
from wherry.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from wherry.builder.instructions import Instruction
    from wherry.builder.stage import StageBuild, Steps
    from wherry.image.difference import Change


def steps(stage: StageBuild, instruction: Instruction) -> Steps:
    """Copy files into the stage."""
    from wherry.builder.stage import Step

    build = stage.build
    instruction = stage.expanded(instruction)
    *sources, target = instruction.words
    target = stage.path(target)
    chown, chmod = instruction.flag("chown"), instruction.flag("chmod")
    mode = read_mode(chmod) if chmod else None
    layers = stage.layers

    def changes(base: Base, tree: Tree, selected: list[tuple[str, str]]) -> Iterator[Change]:
        placement = Placement(
            target=target,
            owner=owner_of(base, chown) if chown else (0, 0),
            mode=mode,
            moment=build.latest,
        )
        return copy_changes(base, tree, selected, placement)

    def work() -> dict[str, Any]:
        if not build.request.context.directory:
            raise UsageError("there is no context to copy from")
        root = os.open(build.request.context.directory, DIRECTORY)
        tree = Tree(build.engine.runtime, root, build.request.context.ignore)
        selected = tree.select(sources)
        facts = ["COPY", sources, target, chown, chmod, digest(tree, selected, with_owners=False)]
        key = stage.key(facts)
        if not stage.ignores_cache and (record := build.cached(key)):
            return record
        return build.carry_out(
            key,
            instruction.text,
            lambda: pack(
                build.engine,
                layers.diff_ids,
                lambda base: changes(base, tree, selected),
                latest=build.latest,
            ),
            always=stage.ignores_cache,
        )

    record = yield Step(name=stage.called(instruction.text), work=work, instruction=instruction)
    stage.add_layer(instruction.text, record)


def owner_of(base: Base, text: str) -> tuple[int, int]:
    """The ids that `--chown` means in the image."""
    name, _, group = text.partition(":")
    if name.isdecimal() and (group or name).isdecimal():
        return int(name), int(group or name)
    return lookup_user(text, base.read("etc/passwd"), base.read("etc/group"))


def workdir_steps(stage: StageBuild, instruction: Instruction) -> Steps:
    """Go to a directory, and make it if it is not there."""
    build = stage.build
    path = configs.working_directory(stage.config, instruction.words[0])
    stage.config["WorkingDir"] = path
    name = stage.called(instruction.text)
    layers = stage.layers
    placement = Placement(target=path, moment=build.latest)

    def work() -> dict[str, Any]:
        return pack(
            build.engine,
            layers.diff_ids,
            lambda base: missing_directory(base, path.strip("/"), placement),
            latest=build.latest,
        )

    record = yield stage.cached_step(name, ["WORKDIR", path], work, instruction)
    stage.add_layer(f"WORKDIR {path}", record)
