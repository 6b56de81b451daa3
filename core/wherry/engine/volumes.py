"""What can be done with volumes."""

from __future__ import annotations

import os

from wherry import events
from wherry.container.copy import tree_size
from wherry.errors import UsageError
from wherry.volume.store import VolumeStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wherry.errors import CorruptState
    from wherry.volume.store import Unshared, Users, Volume

    Filters = Mapping[str, Sequence[str]]


class Volumes:
    """The verbs of `wherry volume`; answers are the documents of the Docker Engine API."""

    def __init__(self, unshared: Unshared, users: Users) -> None:
        """`users` tells which containers (ids) use which volumes (names)."""
        self.store = VolumeStore(unshared=unshared)
        self._unshared = unshared
        self._users = users
        # What was wrong with volumes that the last list has left out.
        self.damaged: list[CorruptState] = []

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make a volume, or find the one that has this name and these options."""
        return self.store.create(name, driver=driver, options=options, labels=labels).inspect()

    def list(self, filters: Filters | None = None) -> list[dict[str, Any]]:
        """The volumes that all of `filters` let through."""
        filters = filters or {}
        _check(filters, ("dangling", "driver", "label", "label!", "name"))
        used = self._users() if "dangling" in filters else {}
        self.damaged = []
        return [
            volume.inspect()
            for volume in self.store.volumes(self.damaged)
            if _passes(volume, filters, is_used=bool(used.get(volume.name)))
        ]

    def inspect(self, name: str) -> dict[str, Any]:
        """One volume. Raises NotFound."""
        return self.store.find(name).inspect()

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume; with `force` a missing one is no failure."""
        self.store.remove(name, self._users, force=force)

    def prune(self, filters: Filters | None = None, *, all: bool = False) -> dict[str, Any]:  # noqa: A002
        """Remove what no container uses: anonymous volumes, or `all` of them."""
        filters = dict(filters or {})
        _check(filters, ("all", "label", "label!"))
        every = all or _is_true(filters.pop("all", ("false",)))
        self.store.sweep()
        chosen = [
            volume
            for volume in self.store.volumes()
            if (every or volume.is_anonymous) and _passes(volume, filters, is_used=False)
        ]
        sizes = {volume.name: self.size(volume) for volume in chosen}
        removed = self.store.remove_unused(list(sizes), self._users)
        reclaimed = sum(sizes[name] for name in removed)
        events.record_prune("volume", reclaimed)
        return {"VolumesDeleted": removed, "SpaceReclaimed": reclaimed}

    def size(self, volume: Volume) -> int:
        """The bytes that a volume's files occupy here."""
        if volume.files != volume.mountpoint or not os.path.isdir(volume.mountpoint):
            return 0
        try:
            return tree_size(volume.mountpoint)
        except PermissionError:
            return int(self._unshared(lambda: tree_size(volume.mountpoint)))


def _check(filters: Filters, known: Sequence[str]) -> None:
    for key in filters:
        if key not in known:
            raise UsageError(f"invalid filter '{key}'", hint=f"the filters are {', '.join(known)}")


def _passes(volume: Volume, filters: Filters, *, is_used: bool) -> bool:
    labels = volume.labels or {}
    if "name" in filters and not any(part in volume.name for part in filters["name"]):
        return False
    if "driver" in filters and "local" not in filters["driver"]:
        return False
    if "dangling" in filters and _is_true(filters["dangling"]) == is_used:
        return False
    return all(_has(labels, text) for text in filters.get("label", ())) and not any(
        _has(labels, text) for text in filters.get("label!", ())
    )


def _has(labels: Mapping[str, str], text: str) -> bool:
    name, equals, content = text.partition("=")
    return name in labels and (not equals or labels[name] == content)


def _is_true(texts: Sequence[str]) -> bool:
    truth = {"1": True, "true": True, "0": False, "false": False}
    for text in texts:
        if text not in truth:
            raise UsageError(f"invalid filter: '{text}' is neither true nor false")
    return truth[texts[-1]]
