"""`wherry image tree`: the layers of an image, and which images end on them."""

from __future__ import annotations

from wherry.backend import Command, execute
from wherry.cli.grammar import argument, command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from wherry.engine import Engine
    from wherry.image.store import Image


@command(argument("image"), name="image tree")
def tree(image: str) -> int:
    """Print the layers of an image as a tree"""

    def action(engine: Engine) -> int:
        store = engine.image_store
        _print(store.find(image), store.images())
        return 0

    return execute(Command(argv=tree.argv(image=image), action=action))


def _print(image: Image, others: Iterable[Image]) -> None:
    from wherry.cli.tables import short_id
    from wherry.human import human_size
    from wherry.image.layers import layer_size

    tops: dict[str, list[str]] = {}
    for each in others:
        tops.setdefault(each.diff_ids[-1] if each.diff_ids else "", []).extend(_names(each))
    sizes = [layer_size(diff_id) for diff_id in image.diff_ids]
    print(f"Image ID: {short_id(image.id)}")
    print(f"Tags:     [{' '.join(_names(image))}]")
    print(f"Size:     {human_size(sum(sizes), 3)}")
    print("Image Layers")
    for at, (diff_id, size) in enumerate(zip(image.diff_ids, sizes, strict=True)):
        branch = "└──" if at + 1 == len(image.diff_ids) else "├──"
        line = f"{branch} ID: {short_id(diff_id)} Size: {human_size(size, 3)}"
        if named := tops.get(diff_id):
            line += f" Top Layer of: [{' '.join(named)}]"
        print(line)


def _names(image: Image) -> list[str]:
    from wherry.image.reference import parse_reference

    return [parse_reference(name).familiar() for name in image.references]
