"""Unpacked layers: one directory per diff id, shared by all images that have it."""

from __future__ import annotations

import os

from wherry import paths
from wherry.errors import CorruptState
from wherry.files import Lock, make_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wherry.image.store import Image, ImageStore


def layer_directory(diff_id: str) -> str:
    return f"{paths.layers()}/sha256/{diff_id.removeprefix('sha256:')}"


def layer_path(diff_id: str) -> str:
    """The unpacked files of a layer."""
    return f"{layer_directory(diff_id)}/diff"


def missing_layers(image: Image) -> list[str]:
    """The diff ids that are not unpacked yet."""
    return [diff_id for diff_id in image.diff_ids if not os.path.isdir(layer_path(diff_id))]


def unpack_layers(
    store: ImageStore, image: Image, unshared: Callable[[Callable[[], Any]], Any]
) -> None:
    """Unpack what is missing."""
    for diff_id, layer in zip(image.diff_ids, image.manifest["layers"], strict=True):
        if os.path.isdir(layer_path(diff_id)):
            continue
        make_dir(f"{paths.layers()}/sha256", 0o711)
        with Lock(f"{layer_directory(diff_id)}.lock"):
            if os.path.isdir(layer_path(diff_id)):
                continue
            unshared(lambda: _unpack(store.blob_path(layer["digest"]), diff_id))  # noqa: B023


def _unpack(blob: str, diff_id: str) -> None:
    import tarfile

    target = make_dir(f"{layer_directory(diff_id)}.tmp", 0o711)
    make_dir(f"{target}/diff", 0o755)
    try:
        with tarfile.open(blob) as archive:
            archive.extractall(f"{target}/diff", numeric_owner=True, filter="fully_trusted")
    except tarfile.TarError as error:
        raise CorruptState(f"layer {diff_id} is damaged: {error}") from error
    os.rename(target, layer_directory(diff_id))
