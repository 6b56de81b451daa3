"""`docker import`: a tar of files becomes an image of one layer."""

from __future__ import annotations

from wherry.image.archive_files import ArchiveFiles, FileLayer
from wherry.image.assembly import LAYER, give_name, put_image
from wherry.image.decompress import decompressed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wherry.image.layers import Layer
    from wherry.image.store import ImageStore
    from wherry.oci.image_spec import Descriptor


def import_tree(
    store: ImageStore,
    read: Callable[[int], bytes],
    *,
    config: dict[str, Any],
    unpack: Callable[[Sequence[Layer]], None],
    reference: str = "",
) -> str:
    """Make an image whose one layer is a tar of files, compressed or not; its id.

    `config` is the image's config document, without its layers.
    """
    with store.held(), ArchiveFiles(store) as files:
        files.write("layer", decompressed(read))
        diff_id, size = files.digest("layer"), files.size("layer")
        layer: Descriptor = {"mediaType": LAYER, "digest": diff_id, "size": size}
        # What cannot be unpacked is not kept.
        unpack([FileLayer(layer, diff_id, files.file("layer"))])
        store.adopt(files.file("layer"), diff_id)
        document = {**config, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
        image_id, descriptor = put_image(store, document, [layer])
        give_name(store, reference, descriptor)
        return image_id
