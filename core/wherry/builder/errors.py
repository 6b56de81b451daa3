"""What is wrong with a Dockerfile, and where."""

from __future__ import annotations

from contextlib import contextmanager

from wherry.builder.words import WordError
from wherry.errors import UsageError, WherryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry.builder.instructions import Instruction


class DockerfileError(UsageError):
    """Lines `first` to `last` of a Dockerfile cannot be followed."""

    def __init__(self, message: str, first: int, last: int = 0, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.first = first
        self.last = last or first


def syntax_error(
    reason: str, first: int, last: int = 0, *, hint: str | None = None
) -> DockerfileError:
    """An error in how a Dockerfile is written, in docker's words."""
    return DockerfileError(
        f"dockerfile parse error on line {first}: {reason}", first, last, hint=hint
    )


@contextmanager
def placed(instruction: Instruction) -> Iterator[None]:
    """Tell of what is wrong with an instruction where in the Dockerfile it is."""
    first, last = instruction.first, instruction.last
    try:
        yield
    except WordError as error:
        reason = f"failed to process {instruction.text!r}: {error}"
        raise syntax_error(reason, first, last) from error
    except DockerfileError:
        raise
    except WherryError as error:
        raise DockerfileError(error.message, first, last, hint=error.hint) from error


def excerpt(text: str, name: str, first: int, last: int) -> str:
    """The lines of a Dockerfile around `first` to `last`, which are marked."""
    lines = text.removesuffix("\n").split("\n")
    last = min(max(first, last), max(len(lines), 1))
    shown = range(max(first - 3, 1), min(last + 3, len(lines)) + 1)
    width = max(4, len(str(shown.stop)))
    body = []
    for number in shown:
        mark = ">>>" if first <= number <= last else "   "
        body.append(f"{number:>{width}} | {mark} {lines[number - 1]}".rstrip())
    where = f"{name}:{first}" if first == last else f"{name}:{first}-{last}"
    return "\n".join((where, "-" * 20, *body, "-" * 20))
