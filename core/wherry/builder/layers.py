"""Layers that builds make, of changes to those that are there."""

from __future__ import annotations

import os

from wherry import paths
from wherry.builder.copying import Base
from wherry.builder.tree import DIRECTORY
from wherry.container.copy import remove_tree
from wherry.files import make_dir
from wherry.image.commit import PackedLayer, make_layer
from wherry.image.layers import layer_path
from wherry.image.outline import Outline
from wherry.image.packing import Packer, Repeated
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from wherry.builder.remembered import Remembered
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
    contents: Remembered | None = None,
    known: Callable[[str], dict[str, Any] | None] | None = None,
) -> dict[str, Any]:
    """Make the layer of `changes` on others; see PackedLayer.

    `changes` gets what is below, and places to mount on or to put files into; it may be asked
    again and again. Nothing is younger than `latest`. With `contents` the layer's outline is
    told, and with `known`, which finds the record of an outline, the layer is not made where
    it is here already. The caller holds `ImageStore.held()`.
    """
    with Scratch(engine.runtime) as scratch:
        place = scratch.place("base")

        def make() -> dict[str, Any]:
            root = open_layers(engine.runtime, diff_ids, place)

            def walk() -> Iterable[Change]:
                return changes(Base(engine.runtime, root), scratch)

            try:
                found = _find(walk, latest, contents, known) if contents and known else None
                return (found or make_layer(walk, latest=latest, contents=contents)).to_json()
            finally:
                os.close(root)

        packed: dict[str, Any] = engine.runtime.unshared(make, mounts=True)
    return packed


def _find(
    walk: Callable[[], Iterable[Change]],
    latest: int | None,
    contents: Remembered,
    known: Callable[[str], dict[str, Any] | None],
) -> PackedLayer | None:
    """The layer of these changes, if it is here."""
    try:
        outline, warnings = _outlined(walk, latest, contents)
    except OSError:
        return None  # whoever makes the layer tells what is wrong
    record = known(outline)
    if record is None:
        return None
    return PackedLayer(
        descriptor=record["Descriptor"],
        diff_id=record["DiffId"],
        count=record["Count"],
        warnings=warnings,
        outline=outline,
    )


def _outlined(
    walk: Callable[[], Iterable[Change]], latest: int | None, contents: Remembered
) -> tuple[str, list[str]]:
    """The outline of changes, and warnings about what a layer cannot hold."""
    repeated: dict[str, int] = {}
    while True:
        outline = Outline(contents)
        packer = Packer(outline, latest, repeated)
        try:
            packer.pack(walk())
            return outline.finish(), packer.warnings
        except Repeated as found:
            repeated = found.paths
