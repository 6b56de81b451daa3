"""OCI image layouts that are directories of others: caches of builds, and contexts."""

from __future__ import annotations

from wherry.errors import NotFound
from wherry.files import read_json
from wherry.image.store import INDEXES, NAME
from wherry.lean import load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wherry.image.store import Image, ImageStore
    from wherry.oci.image_spec import Descriptor

_DESCRIPTOR = {"mediaType!": str, "digest!": str, "size!": int, "annotations": {"*": str}}
INDEX = {"manifests!": [_DESCRIPTOR]}
"""What index.json of a layout has to look like."""


def named(entry: Descriptor) -> str:
    """The name that a layout gives to an entry; "" for none."""
    annotations = entry.get("annotations") or {}
    return annotations.get(NAME) or ""


def find(directory: str, wanted: str) -> Descriptor:
    """The entry of a layout with a tag, or a digest; "" is its only one, or `latest`.

    Raises NotFound.
    """
    try:
        entries: list[Descriptor] = read_json(f"{directory}/index.json", INDEX)["manifests"]
    except FileNotFoundError:
        raise NotFound(f"{directory} is no OCI image layout") from None
    if not wanted and len(entries) == 1:
        return entries[0]
    tag = wanted or "latest"
    for entry in entries:
        # Some write the tag alone, some all of the image's name.
        if wanted == entry["digest"] or named(entry).rpartition(":")[2] == tag:
            return entry
    raise NotFound(f"there is no image {tag!r} in {directory}")


def blob_path(digest: str) -> str:
    """Where a blob is in a layout."""
    return f"blobs/{digest.replace(':', '/')}"


def take_blob(store: ImageStore, directory: str, descriptor: Descriptor) -> None:
    """Bring a blob of a layout into the store; its digest is verified. Raises WherryError."""
    with store.ingest(descriptor["digest"], descriptor["size"]) as ingest:
        if ingest.complete:
            return
        try:
            file = open(f"{directory}/{blob_path(descriptor['digest'])}", "rb")  # noqa: SIM115
        except FileNotFoundError:
            raise NotFound(f"the layout has no blob {descriptor['digest']}") from None
        with file:
            file.seek(ingest.offset)
            while piece := file.read(1 << 20):
                ingest.write(piece)
        ingest.commit()


def take_image(
    store: ImageStore,
    directory: str,
    descriptor: Descriptor,
    platform: str = "",
    load: Callable[[Sequence[str]], None] = lambda _: None,
) -> Image:
    """Bring an image of a layout into the store: of an index, the one for `platform`.

    `load` is told of the files that are to be read.
    """

    def take(wanted: Sequence[Descriptor]) -> None:
        missing = [each["digest"] for each in wanted if not store.has_blob(each["digest"])]
        load([blob_path(digest) for digest in missing])
        for each in wanted:
            take_blob(store, directory, each)

    waiting = [descriptor]
    while waiting:
        take(waiting)
        indexes = [each for each in waiting if each["mediaType"] in INDEXES]
        waiting = [
            each
            for index in indexes
            for each in load_json(store.read_blob(index["digest"]))["manifests"]
        ]
    manifest = store.manifest_of(descriptor, platform)
    take([manifest["config"], *manifest["layers"]])
    return store.image_of(descriptor, platform)
