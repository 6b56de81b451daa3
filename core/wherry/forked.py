"""What a forked child answers: the result of a function crosses a pipe as JSON."""

from __future__ import annotations

import os

from wherry.errors import WherryError, as_ours, from_json, to_json
from wherry.files import write_all
from wherry.lean import dump_json, load_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


def report(descriptor: int, function: Callable[[], Any]) -> NoReturn:
    """Write what comes of `function()` to a pipe, for `answer_of` at its other end, and end.

    Whatever happens, a forked child must not go on as its parent. What `function` has printed
    it has to flush: nobody does when a child ends so.
    """
    try:
        write_all(descriptor, dump_json(_outcome(function)).encode())
    except KeyboardInterrupt:
        os._exit(130)
    finally:
        os._exit(0)


def _outcome(function: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"result": function()}
    except WherryError as error:
        return {"error": to_json(error)}
    except Exception as error:
        if os.environ.get("WHERRY_DEBUG"):
            import traceback

            traceback.print_exc()
        return {"error": to_json(as_ours(error))}


def answer_of(reader: int) -> Any:
    """The result that `report` writes to the pipe, once the child has ended.

    Raises the error that it writes in its place, and WherryError where the child was killed.
    The pipe stays the caller's.
    """
    return unwrap(read_all(reader))


def unwrap(answer: bytes) -> Any:
    """The same, of all that was read from the pipe."""
    if not answer:
        raise WherryError("a helper process ended without an answer")
    outcome = load_json(answer)
    if "error" in outcome:
        raise from_json(outcome["error"])
    return outcome["result"]


def read_all(descriptor: int) -> bytes:
    """Everything up to the end of the file."""
    chunks = []
    while chunk := os.read(descriptor, 65536):
        chunks.append(chunk)
    return b"".join(chunks)
