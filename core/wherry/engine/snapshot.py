"""What a container has changed: `diff` tells it, `commit` makes an image of it."""

from __future__ import annotations

import os

from wherry import paths
from wherry.container.copy import remove_tree
from wherry.container.store import MARK
from wherry.engine import shifted
from wherry.engine.mounts import lower_directories
from wherry.errors import Conflict, NotFound, Unsupported, UsageError, WherryError
from wherry.files import make_dir, read_json
from wherry.harmless import warn
from wherry.image.layers import layer_path
from wherry.image.reference import parse_reference
from wherry.lean import load_json
from wherry.oci.shape import SPEC
from wherry.timestamps import now
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from wherry.container.store import Container
    from wherry.engine import Engine
    from wherry.image.difference import Change
    from wherry.image.store import Image, ImageStore

_LIVE = ("running", "paused", "restarting")
# What a container's body and an image's config have in common.
_CONFIG_KEYS = (
    "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels",
    "StopSignal", "Healthcheck",
)  # fmt: skip
# Notes of the docker versions that made a base image, about containers of theirs.
_OLD_NOTES = ("container", "container_config", "docker_version", "id", "parent", "comment")


@value
class CommitOptions:
    """What `commit` writes into an image beside the container's changes."""

    author: str = ""
    message: str = ""
    # Dockerfile instructions.
    changes: tuple[str, ...] = ()
    pause: bool = True


def changes(engine: Engine, name: str) -> list[tuple[int, str]]:
    """docker's diff of a container: (0 modified, 1 added or 2 deleted, path)."""
    container = _find(engine, name)

    def compare() -> list[list[Any]]:
        with _Trees(engine, container) as trees:
            return [[change.kind, f"/{change.path}"] for change in trees.changes()]

    answer = _undisturbed(engine, container, compare)
    return [(int(kind), str(path)) for kind, path in answer]


def commit(engine: Engine, name: str, repository: str, options: CommitOptions) -> str:
    """Make an image of a container as it is now; its id."""
    from wherry.image.assembly import give_name, put_image

    container = _find(engine, name)
    reference = _reference(repository)
    config = _config(container, options.changes)
    store = engine.image_store
    with store.held():
        base = _base(store, container)
        packed = pack(engine, container, pause=options.pause)
        layers = list(base.manifest["layers"])
        if packed["count"]:
            layers.append(packed["descriptor"])
        command = " ".join(container.body.get("Cmd") or ())
        document = _document(base, config, packed, command, options)
        image_id, descriptor = put_image(store, document, layers)
        give_name(store, reference, descriptor)
    for line in packed["warnings"]:
        warn(line)
    container.event("commit", comment=options.message, imageID=image_id, imageRef=reference)
    return image_id


def _reference(repository: str) -> str:
    if not repository:
        return ""
    reference = parse_reference(repository)
    if reference.digest:
        raise UsageError("refusing to create a tag with a digest reference")
    return reference.canonical()


def _find(engine: Engine, name: str) -> Container:
    """A container that stands on layers."""
    container = engine.containers.find(name)
    if (container.body.get("Wherry") or {}).get("Rootfs"):
        raise Unsupported(
            f"container {container.name} has no layers: it stands on a directory of its own",
            hint=f"`wherry export {container.name}` has all of its files",
        )
    return container


# ---- the files ----


class _Trees:
    """A container's writable layer and the layers below it, open; only where ids are its own."""

    def __init__(self, engine: Engine, container: Container, copy: str = "") -> None:
        """`copy` is a place for a copy of the container's layer with the owners of an image."""
        self._engine = engine
        self._copy = copy
        self._container = container
        self._upper = self._lower = -1

    def __enter__(self) -> _Trees:
        container, runtime = self._container, self._engine.runtime
        layers = lower_directories(container) or [
            make_dir(os.path.join(paths.layers(), "empty"), 0o755)
        ]
        flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
        upper = container.path("upper")
        owners = shifted.original_owners(container) if self._copy else None
        if owners is not None:
            os.mkdir(self._copy)
            try:
                shifted.copy_layer(upper, self._copy, owners)
            except BaseException:
                remove_tree(self._copy)
                raise
            upper = self._copy
            layers = [layer_path(diff_id) for diff_id in reversed(container.record["Layers"])]
        self._upper = os.open(upper, flags)
        # In a mount namespace of our own: the container does not see it.
        runtime.mount_overlay(layers, "", "", container.path("root"))
        self._lower = os.open(container.path("root"), flags)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._upper)
        os.close(self._lower)
        if self._copy:
            remove_tree(self._copy)

    def changes(self, *, as_layer: bool = False) -> Iterator[Change]:
        from wherry.image.difference import changes

        return changes(
            self._upper, self._lower, unwanted=_mount_points(self._container), as_layer=as_layer
        )


def _mount_points(container: Container) -> frozenset[str]:
    """Where every run mounts something that nobody asked for: /proc, /etc/hosts, …

    The container's root gets an empty file or directory for each, which is no change; nor
    are the mark and the link to what is mounted.
    """
    try:
        spec = read_json(container.path("config.json"), SPEC)
    except FileNotFoundError:
        return frozenset((MARK,))  # it has never run
    asked: set[str] = set()
    if not container.is_build_step():
        asked.update(point["Destination"] for point in container.record["Mounts"])
        asked.update(container.body["HostConfig"].get("Tmpfs") or ())
    mounted = (mount["destination"] for mount in spec.get("mounts") or ())
    made = (MARK,) if container.is_build_step() else (MARK, "etc/mtab")
    return frozenset((*made, *(path.strip("/") for path in mounted if path not in asked)))


def _undisturbed(engine: Engine, container: Container, look: Callable[[], Any]) -> Any:
    """`look()` at a container's files, while it is neither started nor removed."""
    if container.reload()["Status"] not in _LIVE:
        with container.lock():
            if container.reload()["Status"] not in _LIVE:
                return engine.runtime.unshared(look, mounts=True)
    answer = engine.runtime.unshared(look, mounts=True)
    if not os.path.exists(container.path("container.json")):
        raise Conflict(f"container {container.name} was removed while it was read")
    return answer


def pack(
    engine: Engine,
    container: Container,
    *,
    pause: bool = False,
    latest: int | None = None,
) -> dict[str, Any]:
    """Make a layer of the container's changes; see PackedLayer, make_layer."""
    from wherry.image.assembly import Workspace
    from wherry.image.commit import make_layer

    def make() -> dict[str, Any]:
        with _Trees(engine, container, workspace.path("upper")) as trees:
            return make_layer(lambda: trees.changes(as_layer=True), latest=latest).to_json()

    is_paused = pause and _pause(engine, container)
    try:
        with Workspace(engine.image_store) as workspace:
            answer: dict[str, Any] = _undisturbed(engine, container, make)
        return answer
    finally:
        if is_paused:
            engine.containers.unpause(container.id)


def _pause(engine: Engine, container: Container) -> bool:
    """Pause a running container, if it can be; whether it is to be unpaused."""
    if container.reload()["Status"] != "running":
        return False
    try:
        engine.containers.pause(container.id)
    except Conflict:
        return False  # it has ended, or somebody else has paused it just now
    except WherryError as error:
        warn(f"container {container.name} goes on meanwhile: {error.message}")
        return False
    return True


# ---- the image ----


def _base(store: ImageStore, container: Container) -> Image:
    """The image that the container was made from. Raises NotFound."""
    image_id = container.record["Image"]
    try:
        config = load_json(store.read_blob(image_id))
        platform = "/".join(
            filter(None, (config.get("os"), config.get("architecture"), config.get("variant")))
        )
        return store.find(image_id, platform)
    except NotFound:
        raise NotFound(
            f"the image of container {container.name} is not there any more",
            hint=f"`wherry export {container.name} | wherry import - NAME` keeps its files",
        ) from None


def _config(container: Container, instructions: Sequence[str]) -> dict[str, Any]:
    from wherry.builder.changes import apply_changes

    body = container.body
    return apply_changes({key: body[key] for key in _CONFIG_KEYS if body.get(key)}, instructions)


def _document(
    base: Image,
    config: dict[str, Any],
    packed: dict[str, Any],
    command: str,
    options: CommitOptions,
) -> dict[str, Any]:
    """The new image's config document."""
    moment = now()
    step: dict[str, Any] = {
        "created": moment,
        "created_by": command,
        **({"author": options.author} if options.author else {}),
        **({"comment": options.message} if options.message else {}),
        **({} if packed["count"] else {"empty_layer": True}),
    }
    document = {key: part for key, part in base.config.items() if key not in _OLD_NOTES}
    document.pop("author", None)
    if options.author:
        document["author"] = options.author
    diff_ids = [*base.diff_ids, *([packed["diff_id"]] if packed["count"] else ())]
    return {
        **document,
        "created": moment,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [*history_of(base), step],
    }


def history_of(base: Image) -> list[dict[str, Any]]:
    """The base's history, with a step for every layer, which not every tool writes."""
    steps = list(base.config.get("history") or ())
    told = sum(not step.get("empty_layer") for step in steps)
    untold = max(0, len(base.diff_ids) - told)
    return [*({"created": base.config.get("created") or now()} for _ in range(untold)), *steps]
