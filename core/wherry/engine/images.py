"""What is done to images: the verbs of `wherry image`."""

from __future__ import annotations

import sys

from wherry.image.layers import unpack, unpack_layers
from wherry.image.reference import parse_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wherry.container.request import PullOptions
    from wherry.image.layers import Layer
    from wherry.image.store import Image, ImageStore


class Images:
    """All images of this user."""

    def __init__(
        self,
        store: ImageStore,
        unshared: Callable[[Callable[[], Any]], Any],
        users: Callable[[], list[tuple[str, str, bool]]],
    ) -> None:
        self.store = store
        self._unshared = unshared
        self._users = users

    def obtain(self, name: str, pull: PullOptions) -> Image:
        """Pull an image that a container needs."""
        from wherry.image.pull import pull_image

        reference = parse_reference(name)
        if pull.policy != "always" and not pull.quiet:
            print(f"Unable to find image '{reference.familiar()}' locally", file=sys.stderr)
        pull_image(
            self.store, reference, platform=pull.platform or None, unpack=self._unpack_arriving
        )
        return self.store.find(name, pull.platform or None)

    def unpack(self, image: Image) -> None:
        """Unpack what is not unpacked yet."""
        _warn(unpack_layers(self.store, image, self._unshared))

    def _unpack_arriving(self, layers: Sequence[Layer]) -> None:
        _warn(unpack(layers, self._unshared))


def _warn(warnings: list[str]) -> None:
    for line in warnings:
        print(f"wherry: warning: {line}", file=sys.stderr)
