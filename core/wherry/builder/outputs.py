"""What a build leaves: an image in the store."""

from __future__ import annotations

import os

from wherry.builder.layers import Layers, open_layers, pack
from wherry.image.assembly import give_name, put_image, put_index
from wherry.image.build_cache import CACHE
from wherry.image.difference import changes
from wherry.image.platform import platform_of
from wherry.image.reference import parse_reference
from wherry.image.store import Image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from wherry.builder.copying import Base
    from wherry.builder.layers import Scratch
    from wherry.builder.stage import StageBuild
    from wherry.image.difference import Change
    from wherry.image.store import ImageStore
    from wherry.oci.image_spec import Descriptor


def document_of(stage: StageBuild) -> dict[str, Any]:
    """The config document of what a stage has come to."""
    build = stage.build
    request, config = build.request, dict(stage.config)
    if labels := {**(config.get("Labels") or {}), **request.labels}:
        unwanted = request.unset_labels
        config["Labels"] = {name: text for name, text in labels.items() if name not in unwanted}
    if unwanted := request.unset_env:
        entries = config.get("Env") or ()
        config["Env"] = [each for each in entries if each.partition("=")[0] not in unwanted]
    if not any(entry.startswith("PATH=") for entry in config.get("Env") or ()):
        from wherry.builder.config import DEFAULT_PATH

        config["Env"] = [f"PATH={DEFAULT_PATH}", *(config.get("Env") or ())]
    config.setdefault("WorkingDir", "/")
    history = _dated(stage)
    document = {
        **stage.document,
        "history": history,
        "created": build.created(history[-1]["created"] if history else None),
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": list(stage.layers.diff_ids)},
    }
    for cache in request.caches_to:
        if cache.kind == "inline":
            from wherry.builder.exchange import chosen, told

            document[CACHE] = told(chosen(build.records, cache, stage.layers))
    if request.omits_history:
        document.pop("history", None)
    return document


def _dated(stage: StageBuild) -> list[dict[str, Any]]:
    """The history, in which steps of before the first layer have that one's time."""
    history = stage.document.get("history") or []
    known = next((step["created"] for step in history if step.get("created")), None)
    first = stage.build.created(known)
    return [step if step.get("created") != "" else {**step, "created": first} for step in history]


def put_images(store: ImageStore, stages: Sequence[StageBuild]) -> tuple[Image, Descriptor]:
    """Have what stages have come to in the store: the first one's image, and what describes all.

    That is its manifest, or an index where there are several, one for each platform. The
    caller gives it a name, or keeps it.
    """
    images = [_put_image(store, stage) for stage in stages]
    first = images[0]
    if len(images) == 1:
        return first, first.descriptor
    entries = [(image.descriptor, platform_of(image.config)) for image in images]
    return first, put_index(store, entries)


def _put_image(store: ImageStore, stage: StageBuild) -> Image:
    document, layers = document_of(stage), stage.layers.descriptors
    image_id, descriptor = put_image(store, document, layers, stage.build.request.annotations)
    manifest = {"config": {"digest": image_id}, "layers": list(layers)}
    return Image(id=image_id, descriptor=descriptor, manifest=manifest, config=document)


def keep_images(
    store: ImageStore, stages: Sequence[StageBuild], tags: Sequence[str]
) -> tuple[str, Descriptor]:
    """Keep stages as an image, with these names; its id, and what describes it."""
    image, descriptor = put_images(store, stages)
    names = [parse_reference(tag).canonical() for tag in tags]
    for name in names or [""]:
        give_name(store, name, descriptor)
    return image.id if len(stages) == 1 else descriptor["digest"], descriptor


def squash(stage: StageBuild, *, everything: bool = False) -> None:
    """Make one layer of all that a stage has put on the image that it began with.

    With `everything`, of what was in that image, too.
    """
    build = stage.build
    layers, steps = (0, 0) if everything else stage.inherited
    base, every = stage.layers.diff_ids[:layers], stage.layers.diff_ids
    if len(every) - layers < 2:
        return

    def all_changes(below: Base, scratch: Scratch) -> Iterator[Change]:
        root = open_layers(build.engine.runtime, every, scratch.place("whole"))
        try:
            yield from changes(root, below.root, is_whole=True)
        finally:
            os.close(root)

    packed = pack(build.engine, base, all_changes, latest=build.latest)
    stage.layers = Layers(
        diff_ids=(*base, packed["diff_id"]),
        descriptors=(*stage.layers.descriptors[:layers], packed["descriptor"]),
    )
    history = stage.document["history"]
    merged = {"created": history[-1]["created"], "comment": "all new layers as one"}
    told = [{**step, "empty_layer": True} for step in history[steps:]]
    stage.document["history"] = [*history[:steps], *told, merged]
