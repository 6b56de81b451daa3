"""What a build leaves: an image in the store."""

from __future__ import annotations

from wherry.image.assembly import give_name, put_image
from wherry.image.reference import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from wherry.builder.stage import StageBuild
    from wherry.image.store import ImageStore
    from wherry.oci.image_spec import Descriptor


def document_of(stage: StageBuild) -> dict[str, Any]:
    """The config document of what a stage has come to."""
    build = stage.build
    config = dict(stage.config)
    if build.request.labels:
        config["Labels"] = {**(config.get("Labels") or {}), **build.request.labels}
    if not any(entry.startswith("PATH=") for entry in config.get("Env") or ()):
        from wherry.builder.config import DEFAULT_PATH

        config["Env"] = [f"PATH={DEFAULT_PATH}", *(config.get("Env") or ())]
    config.setdefault("WorkingDir", "/")
    history = stage.document.get("history")
    return {
        **stage.document,
        "created": build.created(history[-1]["created"] if history else None),
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": list(stage.layers.diff_ids)},
    }


def export_image(
    store: ImageStore, stage: StageBuild, tags: Sequence[str]
) -> tuple[str, Descriptor]:
    """Keep a stage as an image, with these names; its id and its manifest's descriptor."""
    image_id, descriptor = put_image(store, document_of(stage), stage.layers.descriptors)
    names = [parse_reference(tag).canonical() for tag in tags]
    for name in names or [""]:
        give_name(store, name, descriptor)
    return image_id, descriptor
