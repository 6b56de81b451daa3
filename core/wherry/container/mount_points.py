"""Where a container's mounts come from, as its record keeps them: types.

Import this module under TYPE_CHECKING only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from wherry.container.spec import Mount


class MountPoint(TypedDict, total=False):
    """An entry of `Mounts` in docker's inspect, and how it was asked for (`Spec`)."""

    Type: str
    Name: str
    Source: str
    Destination: str
    Driver: str
    Mode: str
    RW: bool
    Propagation: str
    # What follows is not shown by inspect.
    Spec: Mount
    # Made for this container without a name, and removed with it.
    Anonymous: bool
    # Takes the image's files while it is empty.
    CopyUp: bool
    # The layers (diff ids, the lowest first) of a mounted image.
    Layers: list[str]
