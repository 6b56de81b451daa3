"""Images that are mounted on the host, for programs that are no container's.

    RUN/images/<id>/root         where the image's layers are mounted, read-only
    RUN/images/<id>/mount.json   how often, and the layers, which must not go meanwhile

Only root's stand: without root a mount is seen by nobody but who is in the namespace that
it was made in.
"""

from __future__ import annotations

import os

from wherry import origin, paths
from wherry.errors import NotFound, Unsupported, UsageError
from wherry.files import Lock, make_dir, read_json, remove_file, write_json
from wherry.image.layers import layer_path
from wherry.values import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry.engine import Engine

_RECORD = {"Image!": str, "Layers!": [str], "Count!": int}


@value
class Mounted:
    """An image that is mounted."""

    image_id: str
    path: str
    layers: tuple[str, ...]
    count: int


def mount(engine: Engine, name: str) -> str:
    """Mount an image, once more where it is already; where its files are."""
    _require_host(engine)
    store = engine.image_store
    # What is found must not go before it is in the record.
    with store.held(), _locked():
        image = store.find(name)
        known = _find(image.id)
        if known is None:
            engine.images.unpack(image)
            known = Mounted(
                image_id=image.id, path=_root(image.id), layers=tuple(image.diff_ids), count=0
            )
            make_dir(known.path, 0o755)
            _write(known, count=1)
            layers = [layer_path(diff_id) for diff_id in reversed(known.layers)]
            engine.runtime.mount_overlay(layers, "", "", known.path)
        else:
            _write(known, count=known.count + 1)
        return known.path


def unmount(engine: Engine, name: str, *, force: bool = False) -> str:
    """Take back a mount, or all of an image's with `force`; the image's id."""
    _require_host(engine)
    with _locked():
        try:
            image_id = engine.image_store.find(name).id
        except NotFound:
            image_id = name  # its name may have gone meanwhile
        known = _find(image_id)
        if known is None:
            raise NotFound(f"image {name} is not mounted")
        if known.count > 1 and not force:
            _write(known, count=known.count - 1)
        else:
            engine.runtime.unmount(known.path)
            _forget(known.path)
        return known.image_id


def mounted(engine: Engine) -> list[Mounted]:
    """All images that are mounted."""
    _require_host(engine)
    return list(_all())


def unmount_all(engine: Engine) -> None:
    """Take back every mount there is."""
    for each in _all():
        engine.runtime.unmount(each.path)
        _forget(each.path)


def used_layers() -> set[str]:
    """The diff ids of what is mounted."""
    return {layer for each in _all() for layer in each.layers}


def _require_host(engine: Engine) -> None:
    if origin.is_elsewhere():
        raise Unsupported(
            "an image is mounted where its files are: they are in the machine",
            hint="`wherry machine ssh` leads there; `wherry cp` brings a container's files out",
        )
    if engine.runtime.is_rootless():
        raise UsageError(
            "images are mounted by root alone: nobody would see the mount of another user",
            hint="`wherry run --mount type=image,src=IMAGE,dst=DIRECTORY` shows one to a container",
        )


def _locked() -> Lock:
    return Lock(make_dir(paths.image_mounts(), 0o700))


def _all() -> Iterator[Mounted]:
    try:
        names = sorted(os.listdir(paths.image_mounts()))
    except FileNotFoundError:
        return
    for name in names:
        try:
            record = read_json(os.path.join(paths.image_mounts(), name, "mount.json"), _RECORD)
        except FileNotFoundError:
            continue
        path = _root(record["Image"])
        if os.path.ismount(path):  # a reboot takes mounts, and a kill comes before one
            yield Mounted(
                image_id=record["Image"],
                path=path,
                layers=tuple(record["Layers"]),
                count=record["Count"],
            )


def _find(image_id: str) -> Mounted | None:
    digits = image_id.rpartition(":")[2]
    found = [each for each in _all() if each.image_id.rpartition(":")[2].startswith(digits)]
    return found[0] if digits and len(found) == 1 else None


def _root(image_id: str) -> str:
    return os.path.join(paths.image_mounts(), image_id.rpartition(":")[2], "root")


def _write(known: Mounted, *, count: int) -> None:
    record = {"Image": known.image_id, "Layers": list(known.layers), "Count": count}
    write_json(os.path.join(os.path.dirname(known.path), "mount.json"), record)


def _forget(root: str) -> None:
    directory = os.path.dirname(root)
    os.rmdir(root)
    remove_file(os.path.join(directory, "mount.json"))
    os.rmdir(directory)
