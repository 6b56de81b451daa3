"""Commands that take several objects: the first failure does not stop the rest."""

from __future__ import annotations

import sys

from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from wherry.forked import Child

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
            started = [(name, _start(act, name)) for name in names[start : start + _AT_ONCE]]
            for name, child in started:
                yield name, _failure(child)

    def _start(act: Callable[[str], object], name: str) -> Child:
        from wherry.forked import Child

        return Child(lambda: _act_and_print(act, name)).start()

    def _act_and_print(act: Callable[[str], object], name: str) -> None:
        try:
            act(name)
        finally:
            sys.stdout.flush()

    def _failure(child: Child) -> WherryError | None:
        try:
            child.result()
        except WherryError as error:
            return error
        finally:
            child.end()
        return None
