"""Tells the guest what changes in the host's directories that its containers have mounted."""

from __future__ import annotations

import os
import stat
import threading
import time

from wherry_vm.shares.places import guest_path, place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from wherry_vm.machines import Share
    from wherry_vm.shares.announcing import AnnouncingTree
    from wherry_vm.shares.watching import Change, Watcher

_MOST_DIRECTORIES = 16
"""Directories stay watched for a while: the next command mostly mounts the same again."""
_MOST_CHANGES = 500
_MOST_UNTOLD = 4
_PATIENCE = 5

_SAID_ALREADY = {
    ("created", "modified"),
    ("created", "attributes"),
    ("modified", "attributes"),
}
"""Kinds of changes of which the second adds nothing to the first."""


class News:
    """Watches for the shares of a machine; `say` tells its agent."""

    def __init__(
        self, shares: Sequence[tuple[Share, AnnouncingTree]], say: Callable[[dict[str, Any]], None]
    ) -> None:
        self._shares = shares
        self._say = say
        self._changed = threading.Condition()
        self._untold: dict[int, list[tuple[AnnouncingTree, bytes]]] = {}
        self._number = 0
        self._watched: dict[str, None] = {}
        self._watcher: Watcher | None = None

    def watch(self, binds: Iterable[str]) -> None:
        """Running containers have these paths of the guest mounted."""
        wanted = [found for each in binds if (found := self._on_host(each))]
        if not wanted or all(each in self._watched for each in wanted):
            return
        for each in wanted:
            self._watched.pop(each, None)
            self._watched[each] = None
        for each in list(self._watched)[:-_MOST_DIRECTORIES]:
            del self._watched[each]
        if self._watcher is None:
            from wherry_vm.shares.watching import open_watcher

            self._watcher = open_watcher(self.tell)
        self._watcher.watch(set(self._watched))

    def settle(self, seconds: float) -> None:
        """Wait until the guest knows what has changed until now, but no longer than that."""
        if self._watcher is None:
            return
        deadline = time.monotonic() + seconds
        self._watcher.settle()
        with self._changed:
            while self._untold and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.close()

    def tell(self, changes: list[Change]) -> None:
        """Have the guest do again what has changed."""
        expected: list[tuple[AnnouncingTree, bytes]] = []
        said: list[dict[str, Any]] = []
        for change in coalesce(changes)[:_MOST_CHANGES]:
            if (found := self._find(change.path)) is None:
                continue
            share, tree, path = found
            kind, what = _now(change)
            if not kind or tree.is_own(path):
                continue
            tree.expect(path, kind, is_directory=change.is_directory)
            expected.append((tree, path))
            target = place(change.path, (share,))
            said.append(
                {"path": target, "kind": kind, "what": what,
                 "token": f"{share.target}/{tree.token}"}
            )  # fmt: skip
        if said:
            self._send(said, expected)

    def _send(
        self, said: list[dict[str, Any]], expected: list[tuple[AnnouncingTree, bytes]]
    ) -> None:
        with self._changed:
            # The guest cannot keep up: what else changes waits with whoever watches.
            self._changed.wait_for(lambda: len(self._untold) < _MOST_UNTOLD, _PATIENCE)
            self._number += 1
            number = self._number
            self._untold[number] = expected
        self._say({"op": "changed", "number": number, "changes": said})

    def told(self, number: int) -> None:
        """The agent has done all of a message again."""
        with self._changed:
            for tree, path in self._untold.pop(number, ()):
                tree.done(path)
            self._changed.notify_all()

    def _find(self, path: str) -> tuple[Share, AnnouncingTree, bytes] | None:
        """The innermost share that holds a path of the host, and its path there."""
        for share, tree in reversed(self._shares):
            if place(path, (share,)) is not None:
                below = guest_path(path)[len(guest_path(share.source)) :]
                # Shares that are read-only refuse what would have to be done there.
                return None if share.readonly else (share, tree, os.fsencode(below))
        return None

    def _on_host(self, path: str) -> str | None:
        """The host's directory that is `path` in the guest; that of a file, too."""
        for share, _ in reversed(self._shares):
            if path == share.target or path.startswith(share.target + "/"):
                below = path[len(share.target) :].strip("/")
                found = os.path.join(share.source, *below.split("/")) if below else share.source
                return found if os.path.isdir(found) else os.path.dirname(found)
        return None


def coalesce(changes: Iterable[Change]) -> list[Change]:
    """One change for each path, in the order in which they were last told of."""
    last: dict[str, Change] = {}
    for change in changes:
        before = last.pop(change.path, None)
        if before is not None and (before.kind, change.kind) in _SAID_ALREADY:
            change = before
        last[change.path] = change
    return list(last.values())


def _now(change: Change) -> tuple[str, str]:
    """What to tell, and what it is: file, directory or link; "" for nothing."""
    try:
        mode = os.lstat(change.path).st_mode
    except OSError:
        # What was made and removed again the guest has never seen.
        return ("deleted" if change.kind == "deleted" else ""), "file"
    kind = change.kind if change.kind != "deleted" else "modified"
    if stat.S_ISDIR(mode):
        return (kind if kind != "modified" else ""), "directory"
    if stat.S_ISLNK(mode):
        return (kind if kind == "created" else ""), "link"
    return (kind if stat.S_ISREG(mode) else ""), "file"
