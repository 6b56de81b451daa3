"""What changes in directories of the host: each system has its own way to tell.

A watcher is given directories, and tells in a thread of its own what has changed in them
and below, a few at a time. It may tell too much, and a change that was undone meanwhile.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NamedTuple, Protocol

    class Change(NamedTuple):
        """`kind` is created, modified, deleted or attributes."""

        path: str
        kind: str
        is_directory: bool = False

    Tell = Callable[[list[Change]], None]

    class Watcher(Protocol):
        """Watches directories, and all that is below them."""

        def watch(self, directories: set[str]) -> None:
            """Watch these from now on, and no others."""

        def settle(self) -> None:
            """Return when everything that has changed until now has been told."""

        def close(self) -> None: ...

else:
    from collections import namedtuple

    Change = namedtuple("Change", ("path", "kind", "is_directory"), defaults=(False,))


MOST_DIRECTORIES = 8192
"""How many are watched at most: the system's own limits are for all programs of a user."""


def open_watcher(tell: Tell) -> Watcher:
    """This system's watcher, or one that looks again and again."""
    try:
        if sys.platform == "linux":
            from wherry_vm.shares.watching.inotify import InotifyWatcher as SystemWatcher
        elif sys.platform == "darwin":
            from wherry_vm.shares.watching.fsevents import FSEventsWatcher as SystemWatcher
        else:
            from wherry_vm.shares.watching.windows import WindowsWatcher as SystemWatcher
        return SystemWatcher(tell)
    except (OSError, AttributeError):
        from wherry_vm.shares.watching.polling import PollingWatcher

        return PollingWatcher(tell)
