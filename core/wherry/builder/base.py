"""FROM: what a stage begins with."""

from __future__ import annotations

import copy

from wherry.builder.config import set_environment
from wherry.builder.context import ImageLayout
from wherry.builder.errors import placed
from wherry.builder.layers import Layers
from wherry.builder.stage import Needs, Step
from wherry.builder.words import process_word
from wherry.engine.snapshot import history_of
from wherry.errors import NotFound, UsageError
from wherry.image.build_cache import CACHE
from wherry.image.layers import missing_layers
from wherry.image.platform import parse_platform
from wherry.image.reference import parse_reference
from wherry.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from wherry.builder.build import Build
    from wherry.builder.instructions import Instruction, Stage
    from wherry.builder.stage import StageBuild, Steps
    from wherry.image.store import Image

SCRATCH = "scratch"
# Notes of the docker versions that made a base image, about containers of theirs.
_OLD_NOTES = ("container", "container_config", "docker_version", "id", "parent", "comment")


def steps(stage: StageBuild) -> Steps:
    """Have the base of a stage, and begin with it."""
    build = stage.build
    name = base_name(build, stage.stage)
    if not name:
        raise UsageError(f"base name ({stage.stage.base}) should not be blank")
    earlier = build.stage_named(name, before=stage.stage.index)
    if earlier is not None:
        other = build.stages[earlier]
        yield Needs(stage=other)
        stage.layers, stage.document = other.layers, copy.deepcopy(other.document)
        stage.inherited, stage.args = other.inherited, dict(other.args)
        stage.called(f"FROM {name}")
    elif name == SCRATCH:
        platform = _platform(stage)
        stage.document = {"architecture": platform.architecture, "os": platform.os, "config": {}}
        if platform.variant:
            stage.document["variant"] = platform.variant
        stage.called("FROM scratch")
    else:
        origin = stage.stage.origin
        image = yield from image_steps(build, name, str(_platform(stage)), origin, stage)
        stage.layers = Layers(diff_ids=image.diff_ids, descriptors=tuple(image.manifest["layers"]))
        stage.document = {
            key: copy.deepcopy(part)
            for key, part in image.config.items()
            if key not in (*_OLD_NOTES, CACHE)
        }
        stage.document["history"] = history_of(image)
        stage.inherited = (len(image.diff_ids), len(stage.document["history"]))
        stage.document["config"] = stage.document.get("config") or {}
    if earlier is None and build.request.env:
        set_environment(stage.config, build.request.env.items())


def base_name(build: Build, stage: Stage) -> str:
    """What a FROM names, its variables replaced by those of before the first FROM."""
    with placed(stage.origin):
        return process_word(stage.base, build.globals, escape=build.dockerfile.escape)


def _platform(stage: StageBuild) -> Any:
    text = process_word(stage.stage.platform, stage.build.globals)
    return parse_platform(text) if text else stage.build.platform


def image_steps(
    build: Build, name: str, platform: str, origin: Instruction, stage: StageBuild | None = None
) -> Generator[Step | Needs, Any, Image]:
    """Have an image, from its registry if need be, and its layers unpacked.

    `origin` names it; `stage` is what begins with it.
    """
    given = build.request.context_named(name)
    if isinstance(given, ImageLayout):
        shown = given.descriptor["digest"]
        image = yield from _layout_steps(build, name, given, platform)
    elif given is None or isinstance(given, str):
        wanted = _wanted(name, given)
        shown = parse_reference(wanted).canonical()
        image = yield from _pull_steps(build, wanted, platform, origin)
    else:
        raise UsageError(
            f"context {name!r} is a directory, and no image that a stage could begin with",
            hint=f"COPY --from={name} takes files of it",
        )

    def unpack() -> dict[str, Any]:
        build.engine.images.unpack(image)
        return {}

    yield Step(
        name=stage.called(f"FROM {shown}") if stage else f"FROM {shown}",
        look=lambda: None if missing_layers(image) else {"cached": True},
        work=unpack,
        instruction=origin,
        identity="" if stage else f"layers {image.id}",
    )
    return image


def _wanted(name: str, given: str | None) -> str:
    """The image that a name means; `given` is the URL of a context that stands for it."""
    scheme, mark, image = (given or "").partition("://")
    if mark and scheme != "docker-image":
        raise UsageError(f"unsupported context source {scheme} for {name}")
    try:
        parse_reference(image or name)
    except UsageError as error:
        raise UsageError(f"failed to parse stage name {name!r}: {error.message}") from error
    return image or name


def _layout_steps(
    build: Build, name: str, layout: ImageLayout, platform: str
) -> Generator[Step | Needs, Any, Image]:
    """Have an image of a layout in the store."""
    store = build.engine.image_store

    def bring() -> dict[str, Any]:
        layout.take(store, platform)
        return {}

    step = f"[context {name}] load from OCI image layout {platform}"
    yield Step(name=step, work=bring, identity=step)
    layout.context.loaded()
    return store.image_of(layout.descriptor, platform)


def _pull_steps(
    build: Build, wanted: str, platform: str, origin: Instruction
) -> Generator[Step | Needs, Any, Image]:
    """Have an image in the store, from its registry if need be."""
    store, policy = build.engine.image_store, build.request.pull_options.policy
    reference = parse_reference(wanted)
    shown = reference.canonical()

    def look() -> dict[str, Any] | None:
        if policy == "always":
            return None
        try:
            store.find(wanted, platform)
        except NotFound:
            return None
        return {}

    def pull() -> dict[str, Any]:
        if policy == "never":
            raise NotFound(f"{shown}: image not found, and --pull=never")
        options = replace(build.request.pull_options, platform=platform, quiet=False)
        build.engine.images.pull(reference, options)
        return {}

    yield Step(
        name=f"[internal] load metadata for {shown}",
        look=look,
        work=pull,
        instruction=origin,
        identity=f"image {shown} {platform}",
    )
    return store.find(wanted, platform)
