"""What a build leaves: an image in the store."""

from __future__ import annotations

import os

from wherry.builder.layers import Layers, open_layers, pack
from wherry.image.assembly import give_name, put_image
from wherry.image.build_cache import CACHE
from wherry.image.difference import changes
from wherry.image.reference import parse_reference

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
    history = stage.document.get("history")
    document = {
        **stage.document,
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


def export_image(
    store: ImageStore, stage: StageBuild, tags: Sequence[str]
) -> tuple[str, Descriptor]:
    """Keep a stage as an image, with these names; its id and its manifest's descriptor."""
    image_id, descriptor = put_image(
        store, document_of(stage), stage.layers.descriptors, stage.build.request.annotations
    )
    names = [parse_reference(tag).canonical() for tag in tags]
    for name in names or [""]:
        give_name(store, name, descriptor)
    return image_id, descriptor


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
