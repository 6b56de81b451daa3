"""Commands that take several objects: the first failure does not stop the rest."""

from __future__ import annotations

import sys

from wherry.errors import WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def complain(message: str, hint: str | None = None) -> None:
    """Print one line of complaint, and what to try on the next."""
    if sys.stdout is not None:
        sys.stdout.flush()
    print(f"wherry: {message}", *([hint] if hint else ()), sep="\n", file=sys.stderr)


def for_each(names: Iterable[str], act: Callable[[str], object], *, echo: bool = True) -> int:
    """Do `act` to each name; the exit code. A success prints the name as it was given."""
    code = 0
    for name in names:
        try:
            act(name)
        except WherryError as error:
            complain(error.message, error.hint)
            code = 1
        else:
            if echo:
                print(name)
    return code
