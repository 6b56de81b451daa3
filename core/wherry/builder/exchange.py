"""`--cache-from` and `--cache-to`: what builds keep, as others can have it.

A cache travels as an image: its layers are those that steps have made, and its config says
which step made which (the key CACHE). So a registry keeps it as any image, and what can
verify, pull and push an image does the same for a cache. `type=inline` says it in the
config of the very image that is built.
"""

from __future__ import annotations

import os

from wherry import origin
from wherry.builder import directories
from wherry.builder.context import Context, ImageLayout
from wherry.builder.request import read_fields
from wherry.errors import NotFound, UsageError, WherryError
from wherry.image import layouts
from wherry.image.assembly import put_image
from wherry.image.blobs import compressed
from wherry.image.build_cache import CACHE, BuildCache
from wherry.image.platform import host_platform
from wherry.image.reference import parse_reference
from wherry.values import replace, value
from wherry.words import join_csv, read_bool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from wherry.builder.layers import Layers
    from wherry.container.request import PullOptions
    from wherry.engine import Engine
    from wherry.image.store import Image
    from wherry.oci.image_spec import Descriptor

_RECORDS = [{"Keys!": [str], "DiffId!": str, "Count!": int, "Step!": str, "Created!": str}]


@value
class Cache:
    """Where a cache comes from or goes to."""

    # "registry", "local" or "inline".
    kind: str
    # An image's name, or an absolute path of the host that the build was asked for on.
    place: str = ""
    tag: str = "latest"
    # "min" has the layers of the image that is built, "max" those of all steps.
    mode: str = "min"
    ignores_errors: bool = False
    # Of a directory of another host: what that has found in it.
    found: ImageLayout | WherryError | None = None


def read_import(text: str) -> Cache:
    """`type=registry,ref=NAME`, `type=local,src=DIRECTORY`, or NAME alone. Raises UsageError."""
    fields = _fields(text)
    kind = fields.get("type", "registry")
    if kind not in ("registry", "local"):
        raise UsageError(
            f"unknown cache importer: {kind!r}", hint="it is type=registry or type=local"
        )
    return _cache(kind, fields, "src")


def read_export(text: str) -> Cache:
    """`type=registry,ref=NAME`, `type=local,dest=DIRECTORY`, `type=inline`. Raises UsageError."""
    fields = _fields(text)
    kind = fields.get("type", "registry")
    if kind not in ("registry", "local", "inline"):
        raise UsageError(
            f"unknown cache exporter: {kind!r}",
            hint="it is type=registry, type=local or type=inline",
        )
    return _cache(kind, fields, "dest")


def _fields(text: str) -> dict[str, str]:
    return read_fields(text) if "=" in text else {"ref": text}


def with_own_place(text: str) -> str:
    """A cache as a build elsewhere is told of it: its directory is one of this host."""
    fields = _fields(text)
    if fields.get("type") == "local":
        for key in ("src", "dest"):
            if key in fields:
                fields[key] = os.path.abspath(fields[key])
    return join_csv(f"{key}={content}" for key, content in fields.items())


def _cache(kind: str, fields: dict[str, str], directory: str) -> Cache:
    mode = fields.get("mode", "min")
    if mode not in ("min", "max"):
        raise UsageError(f"invalid cache mode {mode!r}", hint="it is min or max")
    place = fields.get("ref", "") if kind == "registry" else fields.get(directory, "")
    if kind == "registry":
        parse_reference(place)
    elif kind == "local" and not place:
        raise UsageError(f"a local cache needs {directory}=DIRECTORY")
    if kind == "local" and not origin.is_elsewhere():
        place = os.path.abspath(place)
    return Cache(
        kind=kind,
        place=place,
        tag=fields.get("tag", "latest"),
        mode=mode,
        ignores_errors=read_bool(fields.get("ignore-error", "false")),
    )


# ---- from elsewhere ----


def bring(engine: Engine, cache: Cache, options: PullOptions) -> int:
    """Have what a cache holds, as if it had been built here; the number of its steps.

    The caller holds `ImageStore.held()`.
    """
    if cache.kind == "local":
        image = _arrived(engine, cache.found or find_layout(cache))
    else:
        image = _pulled(engine, cache.place, options)
    return _keep(engine, image)


def _pulled(engine: Engine, name: str, options: PullOptions) -> Image:
    reference, store = parse_reference(name), engine.image_store
    before = store.entries()
    engine.images.pull(reference, replace(options, quiet=True, platform=""))
    image = store.find(name)
    if all(entry["digest"] != image.descriptor["digest"] for entry in before):
        # A cache is no image that anybody wants to see.
        store.untag(reference.canonical(), forget=True)
    return image


def find_layout(cache: Cache) -> ImageLayout:
    """The image that is a cache in a directory of this host. Raises NotFound."""
    if not os.path.exists(f"{cache.place}/index.json"):
        raise NotFound(f"there is no cache in {cache.place}")
    return ImageLayout(Context(cache.place), layouts.find(cache.place, cache.tag))


def _arrived(engine: Engine, found: ImageLayout | WherryError) -> Image:
    if isinstance(found, WherryError):
        raise found
    return found.take(engine.image_store)


def _keep(engine: Engine, image: Image) -> int:
    from wherry.shapes import fits

    records = image.config.get(CACHE)
    if not fits(records, _RECORDS) or records is None:
        raise NotFound("it has no cache of a build by wherry")
    engine.images.unpack(image)
    cache = BuildCache(engine.image_store)
    layers = dict(zip(image.diff_ids, image.manifest["layers"], strict=True))
    count = 0
    for record in records:
        descriptor = layers.get(record["DiffId"])
        if record["Count"] and descriptor is None:
            continue
        count += 1
        cache.take({**record, "Descriptor": descriptor or _NOTHING})
    return count


_NOTHING = {"mediaType": "", "digest": "", "size": 0}


# ---- to elsewhere ----


def chosen(records: Sequence[dict[str, Any]], cache: Cache, layers: Layers) -> list[dict[str, Any]]:
    """Those of the records that go along: all, or what made the layers of an image."""
    if cache.mode == "max":
        return list(records)
    return [each for each in records if not each["Count"] or each["DiffId"] in layers.diff_ids]


def told(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a config says of steps; the manifest beside it describes their layers."""
    return [
        {key: each[key] for key in each if key not in ("Descriptor", "Own")} for each in records
    ]


def send(
    engine: Engine, cache: Cache, records: Sequence[dict[str, Any]], options: PullOptions
) -> None:
    """Leave what these records tell of; the caller holds `ImageStore.held()`."""
    store = engine.image_store
    layers: dict[str, Descriptor] = {}
    for record in records:
        if record["Count"] and record["DiffId"] not in layers:
            descriptor = compressed(store, record["Descriptor"], engine.runtime.unshared)
            layers[record["DiffId"]] = descriptor
    platform = host_platform()
    config: dict[str, Any] = {
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": list(layers)},
        CACHE: told(records),
    }
    _, descriptor = put_image(store, config, list(layers.values()))
    if cache.kind == "local":
        directories.leave(store, cache.place, cache.tag, descriptor)
    else:
        _push(engine, cache.place, descriptor, options)


def _push(engine: Engine, name: str, descriptor: Descriptor, options: PullOptions) -> None:
    from wherry.image.connect import connect
    from wherry.image.progress import open_progress
    from wherry.image.push import push_images

    reference = parse_reference(name)
    with open_progress(quiet=True) as progress:
        registry = connect(reference, progress, options)
        push_images(
            engine.image_store, [(reference, descriptor)], progress=progress, registry=registry
        )
