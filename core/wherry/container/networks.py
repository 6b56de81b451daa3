"""Which networks a container is to be on."""

from __future__ import annotations

from wherry.container.namespaces import mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from wherry.container.store import Container

    Settings = Mapping[str, Any]

_DEFAULT = ("", "default", "bridge", "private", "slirp4netns", "pasta")


def wanted(body: Mapping[str, Any]) -> dict[str, Settings]:
    """The networks that a container is to be on, with the settings for each."""
    network = mode(body, "network")
    is_default = network.partition(":")[0] in _DEFAULT
    first = "bridge" if is_default else network
    given = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    named = {("bridge" if name in _DEFAULT else name): each or {} for name, each in given.items()}
    return {first: named.get(first, {}), **named}


def networks_of(container: Container) -> dict[str, Settings]:
    """The networks that a container is to be on: as at first, or as changed since."""
    changed = container.record.get("Networks")
    if changed is not None:
        return dict(changed)
    network = mode(container.body, "network")
    if network in ("none", "host") or network.startswith("container:"):
        return {}
    return wanted(container.body)
