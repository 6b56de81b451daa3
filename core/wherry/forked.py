"""Forked children, which never go on as their parent, and what they answer.

The result of a function crosses a pipe as JSON, a WherryError as itself.
"""

from __future__ import annotations

import os
import sys

from wherry.errors import Unsupported, WherryError, as_ours, from_json, to_json
from wherry.files import write_all
from wherry.lean import dump_json, load_json, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn


def start(function: Callable[[], object], fork: Callable[[], int] | None = None) -> int:
    """Fork a child that calls `function` and ends, whatever comes of that; its pid.

    `fork` takes the place of os.fork. What `function` has printed it has to flush: nobody does
    when a child ends so. Its exit code is 0, 1 after an error, and 130 after KeyboardInterrupt.

    A signal finds no child, or one that is within `function`'s care: until then all of them
    are held back. Where one of them raises something here, the child is killed first.
    """
    if sys.platform == "win32":
        raise Unsupported("processes fork on Linux and macOS only")
    held = signals.pthread_sigmask(signals.SIG_BLOCK, signals.valid_signals())
    try:
        child = (fork or os.fork)()
    except BaseException:
        signals.pthread_sigmask(signals.SIG_SETMASK, held)
        raise
    if child == 0:
        _call_and_end(function, held)
    try:
        signals.pthread_sigmask(signals.SIG_SETMASK, held)
    except BaseException:
        os.kill(child, signals.SIGKILL)
        os.waitpid(child, 0)
        raise
    return child


def _call_and_end(function: Callable[[], object], mask: Iterable[int]) -> NoReturn:
    code = 1
    try:
        signals.pthread_sigmask(signals.SIG_SETMASK, mask)
        function()
        code = 0
    except KeyboardInterrupt:
        code = 130
    finally:
        os._exit(code)


class Child:
    """A forked child that calls a function, and answers with what comes of it.

    As a context it is started, and waited for at the end.
    """

    def __init__(
        self,
        function: Callable[[], Any],
        *,
        given: Iterable[int] = (),
        kept: Iterable[int] = (),
    ) -> None:
        """`given` descriptors become the child's: `start` closes them here. `kept` stay ours."""
        self._function = function
        self._given = tuple(given)
        self._kept = tuple(kept)
        self.pid = 0
        # What can be read when it has answered; -1 where nobody wants to know.
        self.answer = -1

    def start(self) -> Child:
        """Where this raises there is no child, and all the descriptors are closed."""
        self.answer, writer = os.pipe()
        try:
            self.pid = start(lambda: self._report(writer))
        except BaseException:
            _close_all(self.answer, *self._kept)
            raise
        finally:
            _close_all(writer, *self._given)
        return self

    def _report(self, writer: int) -> None:
        _close_all(self.answer, *self._kept)
        write_all(writer, dump_json(_outcome(self._function)).encode())

    def result(self) -> Any:
        """What the function returned, once it has.

        Raises the error that it raised in its place, and WherryError where the child was killed.
        """
        return unwrap(read_all(self.answer))

    def close(self) -> None:
        """Hear no more of its answer."""
        if self.answer >= 0:
            os.close(self.answer)
            self.answer = -1

    def end(self) -> None:
        """Hear no more of its answer, and wait until it has ended."""
        self.close()
        os.waitpid(self.pid, 0)

    def __enter__(self) -> Child:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.end()


def _close_all(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


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


def unwrap(answer: bytes) -> Any:
    """The same as `Child.result`, of all that was read from its `answer`."""
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
