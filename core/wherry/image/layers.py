"""Unpacked layers: one directory per diff id, shared by all images that have it.

    DATA/layers/sha256/<hex>/diff        the files, as overlayfs wants them
    DATA/layers/sha256/<hex>/layer.json  {"size": bytes of its files}
    DATA/layers/sha256/<hex>/stream      of one that was made here; see `wherry.image.streams`

A layer is unpacked beside its place and renamed into it once its diff id has been
verified and the disk has all of it: what is there is whole, even after a power failure.
Nobody unpacks a layer twice: who does it holds a lock beside it. Call what makes layers
within `ImageStore.held()`, else a collection of garbage may take them before anything
leads to them.

Whiteouts become character devices 0:0, opaque directories get `user.overlay.opaque`
(Documentation/filesystems/overlayfs.rst), so that layers serve root and others alike.
"""

from __future__ import annotations

import os
import sys

from wherry import paths
from wherry.errors import CorruptState, Unsupported
from wherry.files import (
    Lock,
    make_dir,
    open_regular,
    read_json,
    remove_file,
    storage_error,
    write_json,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Any, Protocol

    from wherry.image.store import Image, ImageStore
    from wherry.oci.image_spec import Descriptor

    class Source(Protocol):
        """The bytes of a layer as a registry has them."""

        def read(self, size: int = -1) -> bytes: ...
        def close(self) -> None: ...

    class Layer(Protocol):
        """A layer that can be opened (once), whole or still on its way."""

        descriptor: Descriptor
        diff_id: str

        def open(self) -> Source: ...

    Unshared = Callable[[Callable[[], Any]], Any]


_HEX = frozenset("0123456789abcdef")
# ioctl_iflags(2)
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_TOPDIR_FL = 0x00020000


def layer_directory(diff_id: str) -> str:
    """Where the layer is or would be. Raises CorruptState for what is no digest.

    Diff ids come out of an image's config, which its author wrote.
    """
    algorithm, _, encoded = str(diff_id).partition(":")
    if algorithm != "sha256" or len(encoded) != 64 or not _HEX.issuperset(encoded):
        raise CorruptState(f"an image's config has the malformed diff id {str(diff_id)!r}")
    return f"{paths.layers()}/sha256/{encoded}"


def layer_path(diff_id: str) -> str:
    """The unpacked files of a layer."""
    return f"{layer_directory(diff_id)}/diff"


def layer_size(diff_id: str) -> int:
    """How many bytes the files of an unpacked layer have; 0 if it is not unpacked."""
    try:
        return int(read_json(f"{layer_directory(diff_id)}/layer.json", {"size!": int})["size"])
    except (FileNotFoundError, CorruptState):
        return 0


def missing_layers(image: Image) -> list[str]:
    """The diff ids that are not unpacked yet."""
    return [diff_id for diff_id in image.diff_ids if not os.path.isdir(layer_path(diff_id))]


class StoredLayer:
    """A layer whose blob is in the store."""

    def __init__(self, store: ImageStore, descriptor: Descriptor, diff_id: str) -> None:
        self.descriptor = descriptor
        self.diff_id = diff_id
        self._path = store.blob_path(descriptor["digest"])

    def open(self) -> Source:
        try:
            return open(open_regular(self._path), "rb", buffering=0)
        except FileNotFoundError:
            raise CorruptState(
                f"layer {self.descriptor['digest']} is missing from the image store",
                hint="pull the image again",
            ) from None


def unpack_layers(store: ImageStore, image: Image, unshared: Unshared) -> list[str]:
    """Unpack what is not unpacked yet; warnings about what could not be kept."""
    layers = [
        StoredLayer(store, descriptor, diff_id)
        for descriptor, diff_id in zip(image.manifest["layers"], image.diff_ids, strict=True)
    ]
    return unpack(layers, unshared)


def unpack(layers: Sequence[Layer], unshared: Unshared) -> list[str]:
    """Unpack those of `layers` that are not unpacked yet; warnings, one line each.

    Raises CorruptState for a layer that is damaged or reaches out of its root; nothing
    of it is left then.
    """
    _spread(make_dir(f"{paths.layers()}/sha256", 0o711))
    if all(os.path.isdir(layer_path(layer.diff_id)) for layer in layers):
        return []
    warnings: list[str] = unshared(lambda: [line for layer in layers for line in _unpack(layer)])
    return list(dict.fromkeys(warnings))


def _unpack(layer: Layer) -> list[str]:
    directory = layer_directory(layer.diff_id)
    if os.path.isdir(f"{directory}/diff"):
        return []
    with _LayerLock(f"{directory}.lock"):
        if os.path.isdir(f"{directory}/diff"):
            return []
        from wherry.container.copy import remove_tree

        _remove_drafts(directory)
        # A name of its own: ext4 puts a directory where the hash of its name says.
        draft = make_dir(f"{directory}.{os.getpid()}.tmp", 0o711)
        os.mkdir(f"{draft}/diff", 0o755)
        try:
            size, warnings = _unpack_into(f"{draft}/diff", layer)
            _put(draft, directory, size)
        except BaseException:
            remove_tree(draft)
            raise
        return warnings


def _remove_drafts(directory: str) -> None:
    """Remove what killed processes have unpacked of a layer; its lock is held."""
    from wherry.container.copy import remove_tree

    parent, _, name = directory.rpartition("/")
    for found in os.listdir(parent):
        if found.startswith(f"{name}.") and found.endswith(".tmp"):
            remove_tree(f"{parent}/{found}")


def _spread(directory: str) -> None:
    """Tell ext4 that the directories in `directory` have nothing to do with each other.

    It gives each a region of the disk of its own then (chattr(1), `T`). In one that has seen
    many files go, a new file costs it up to a millisecond where there is no journal.
    """
    if sys.platform != "linux":
        return
    import fcntl

    descriptor = os.open(directory, os.O_RDONLY)
    try:
        answer = fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(8))
        flags = int.from_bytes(answer[:4], sys.byteorder)
        if not flags & _FS_TOPDIR_FL:
            wanted = (flags | _FS_TOPDIR_FL).to_bytes(4, sys.byteorder)
            fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, wanted + bytes(4))
    except OSError:
        pass  # another file system, which knows no such hint
    finally:
        os.close(descriptor)


def _unpack_into(target: str, layer: Layer) -> tuple[int, list[str]]:
    """Unpack and verify; the size of the files, and warnings."""
    if sys.platform == "linux":
        from wherry.image.decompress import Decompressor
        from wherry.image.unpack import Unpacker

        with Decompressor(layer.open()) as content:
            unpacker = Unpacker(target)
            size = unpacker.unpack(content.read)
            found = content.digest()
        if found != layer.diff_id:
            raise CorruptState(
                f"layer {layer.descriptor['digest']} unpacks to {found},"
                f" but its image says {layer.diff_id}"
            )
        return size, unpacker.warnings
    raise Unsupported("layers are unpacked on Linux only")


def publish(draft: str, diff_id: str, size: int) -> None:
    """Make `draft`, which holds a whole layer as `diff` and its `stream`, the layer of `diff_id`.

    It is below `paths.layers()`, and gone afterwards even where the layer was there already.
    """
    directory = layer_directory(diff_id)
    make_dir(os.path.dirname(directory), 0o711)
    with _LayerLock(f"{directory}.lock"):
        if not os.path.isdir(f"{directory}/diff"):
            _put(draft, directory, size)
            return
        from wherry.container.copy import remove_tree
        from wherry.image.streams import STREAM

        if not os.path.exists(f"{directory}/{STREAM}"):
            # It came as a blob, which goes with its image.
            _write_out(draft)
            os.rename(f"{draft}/{STREAM}", f"{directory}/{STREAM}")
        remove_tree(draft)


def _put(draft: str, directory: str, size: int) -> None:
    write_json(f"{draft}/layer.json", {"size": size}, mode=0o644)
    _write_out(draft)
    os.rename(draft, directory)


def _write_out(draft: str) -> None:
    """Have all of `draft` on the disk: else a power failure makes its files empty."""
    from wherry.writing_out import write_out

    try:
        write_out(draft)
    except OSError as error:
        raise storage_error(error, "write a layer to the disk") from error


class _LayerLock(Lock):
    """The right to make one layer. Its file goes with it."""

    def __enter__(self) -> _LayerLock:
        while True:
            super().__enter__()
            try:
                if os.path.samestat(os.stat(self._path), os.fstat(self.fileno())):
                    return self
            except FileNotFoundError:
                pass  # whom we waited for has removed it
            super().__exit__(None, None, None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        remove_file(self._path)
        super().__exit__(kind, error, trace)
