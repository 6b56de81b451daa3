"""Layers that builds make, of changes to those that are there."""

from __future__ import annotations

import os

from wherry import paths
from wherry.builder.copying import Base
from wherry.builder.tree import DIRECTORY
from wherry.container.copy import remove_tree
from wherry.files import make_dir
from wherry.image.commit import make_layer
from wherry.image.layers import layer_path
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from wherry.engine import Engine
    from wherry.image.difference import Change
    from wherry.oci.image_spec import Descriptor
    from wherry.runtime import Runtime


@value
class Layers:
    """What a root file system is made of, the lowest first."""

    diff_ids: tuple[str, ...] = ()
    descriptors: tuple[Descriptor, ...] = ()

    def with_layer(self, record: dict[str, Any]) -> Layers:
        """With what a step has made, which may be nothing."""
        if not record["Count"]:
            return self
        return Layers(
            diff_ids=(*self.diff_ids, record["DiffId"]),
            descriptors=(*self.descriptors, record["Descriptor"]),
        )


class Scratch:
    """Empty directories for what is mounted while one layer is made; gone at the end.

    They have the name of a draft: what a killed build leaves goes with the next collection.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._directory = f"{paths.layers()}/sha256/build.{os.getpid()}.tmp"

    def place(self, name: str) -> str:
        """An empty directory."""
        return make_dir(f"{self._directory}/{name}", 0o755)

    def __enter__(self) -> Scratch:
        make_dir(self._directory, 0o755)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            remove_tree(self._directory)
        except PermissionError:
            # What ADD has unpacked is others' within.
            self._runtime.unshared(lambda: remove_tree(self._directory))


def open_layers(runtime: Runtime, diff_ids: Sequence[str], place: str) -> int:
    """The root of these layers, to read; only within `unshared(mounts=True)`."""
    directories = [layer_path(diff_id) for diff_id in reversed(diff_ids)]
    if len(directories) > 1:
        runtime.mount_overlay(directories, "", "", place)
    elif directories:
        place = directories[0]
    return os.open(place, DIRECTORY)


def pack(
    engine: Engine,
    diff_ids: Sequence[str],
    changes: Callable[[Base, Scratch], Iterable[Change]],
    *,
    latest: int | None,
) -> dict[str, Any]:
    """Make the layer of `changes` on others; see PackedLayer.

    `changes` gets what is below, and places to mount on or to put files into; it may be asked
    twice. Nothing is younger than `latest`. The caller holds `ImageStore.held()`.
    """
    with Scratch(engine.runtime) as scratch:
        place = scratch.place("base")

        def make() -> dict[str, Any]:
            root = open_layers(engine.runtime, diff_ids, place)
            try:
                return make_layer(
                    lambda: changes(Base(engine.runtime, root), scratch), latest=latest
                ).to_json()
            finally:
                os.close(root)

        packed: dict[str, Any] = engine.runtime.unshared(make, mounts=True)
    return packed
