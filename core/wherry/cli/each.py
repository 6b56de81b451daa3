"""Commands that take several objects: the first failure does not stop the rest."""

from __future__ import annotations

import os
import sys

from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# As many as docker stops at a time.
_AT_ONCE = 50


def complain(message: str, hint: str | None = None) -> None:
    """Print one line of complaint, and what to try on the next."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        pass  # what is the matter with the output is told when the command ends
    from wherry.harmless import harmless

    lines = [f"wherry: {message}", *([hint] if hint else ())]
    print(*map(harmless, lines), sep="\n", file=sys.stderr)


def for_each(
    names: Iterable[str],
    act: Callable[[str], object],
    *,
    echo: bool = True,
    together: bool = False,
    tolerate: type[WherryError] | tuple[()] = (),
) -> int:
    """Do `act` to each name; the exit code. A success prints the name as it was given.

    A failure of the class `tolerate` is told like others, but the exit code stays 0.

    `together` is for what waits: many are done at once, each in a process of its own, and
    reported in the order of their names.
    """
    names = tuple(names)
    results = _run_in_turn(names, act)
    if sys.platform != "win32" and together and len(names) > 1:
        results = _run_together(names, act)
    code = 0
    for name, error in results:
        if error is not None:
            complain(error.message, error.hint)
            code = code if isinstance(error, tolerate) else 1
        elif echo:
            print(name)
    return code


def _run_in_turn(
    names: Sequence[str], act: Callable[[str], object]
) -> Iterable[tuple[str, WherryError | None]]:
    for name in names:
        try:
            act(name)
        except WherryError as error:
            yield name, error
        else:
            yield name, None


if sys.platform != "win32":

    def _run_together(
        names: Sequence[str], act: Callable[[str], object]
    ) -> Iterable[tuple[str, WherryError | None]]:
        sys.stdout.flush()
        for start in range(0, len(names), _AT_ONCE):
            started = [(name, _fork(act, name)) for name in names[start : start + _AT_ONCE]]
            for name, descriptor in started:
                yield name, _result(descriptor)

    def _fork(act: Callable[[str], object], name: str) -> tuple[int, int]:
        """A child that does `act` to `name`: its pid, and where it tells what came of it."""
        from wherry.forked import report

        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            report(writing, lambda: _act_and_print(act, name))
        os.close(writing)
        return pid, reading

    def _act_and_print(act: Callable[[str], object], name: str) -> None:
        try:
            act(name)
        finally:
            sys.stdout.flush()

    def _result(child: tuple[int, int]) -> WherryError | None:
        from wherry.forked import answer_of

        pid, reading = child
        try:
            answer_of(reading)
        except WherryError as error:
            return error
        finally:
            os.close(reading)
            os.waitpid(pid, 0)
        return None
