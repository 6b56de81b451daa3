"""Two ends of a pipe, each of which may fail: processes, or threads where nothing forks."""

from __future__ import annotations

import os
import sys

from wherry.errors import CorruptState
from wherry.forked import Child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")


def piped(
    produce: Callable[[int], None], consume: Callable[[int], T], *, local_first: bool = False
) -> T:
    """`consume()` what a forked child `produce()`s; raises what either of them did.

    Where nothing forks it is a thread that deals with the files of this system: those that
    are produced, with `local_first`.
    """
    if sys.platform == "win32":
        return _threaded(produce, consume, local_first=local_first)
    reader, writer = os.pipe()
    with Child(lambda: produce(writer), given=(writer,), kept=(reader,)) as child:
        truncated: CorruptState | None = None
        try:
            result = consume(reader)
        except CorruptState as error:
            truncated = error
        finally:
            os.close(reader)
        # Where one end fails the other does too: on a broken pipe, or an archive without an end.
        child.result()
        if truncated is not None:
            raise truncated
        return result


def _threaded(
    produce: Callable[[int], None], consume: Callable[[int], T], *, local_first: bool
) -> T:
    """The same in two threads of this process."""
    import threading

    reader, writer = os.pipe()
    results: list[T] = []
    # In the order in which they are told: where one end fails the other does too.
    failures: dict[str, BaseException] = {}

    def run(end: str) -> None:
        descriptor = writer if end == "produce" else reader
        try:
            if end == "produce":
                produce(writer)
            else:
                results.append(consume(reader))
        except BaseException as error:
            failures[end] = error
        finally:
            os.close(descriptor)

    thread = threading.Thread(target=run, args=("produce" if local_first else "consume",))
    thread.start()
    run("consume" if local_first else "produce")
    thread.join()
    consumed, produced = failures.get("consume"), failures.get("produce")
    if produced is not None and (consumed is None or isinstance(consumed, CorruptState)):
        raise produced
    if consumed is not None:
        raise consumed
    return results[0]
