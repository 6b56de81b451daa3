"""Several transfers at a time."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, TypeVar

from wherry.errors import WherryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    T = TypeVar("T")

# As many layers as docker moves at a time.
PARALLEL = 3


def in_parallel(work: Callable[[T], None], items: Sequence[T], cancelled: threading.Event) -> None:
    """Do `work` on all items, the first of them first.

    The first error is raised, with `cancelled` set: whoever is still at work is to stop.
    """
    waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
    results: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)

    def run() -> None:
        while True:
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                if cancelled.is_set():
                    raise WherryError("cancelled")
                work(item)
            except BaseException as error:
                results.put(error)
                return
            results.put(None)

    # Daemons: a Ctrl-C must not wait for a server that is silent.
    for _ in range(min(PARALLEL, len(items))):
        threading.Thread(target=run, daemon=True).start()
    try:
        for _ in items:
            error = results.get()
            if error is not None:
                raise error
    except BaseException:
        cancelled.set()
        raise
