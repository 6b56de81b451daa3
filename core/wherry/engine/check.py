"""`system check`: what is damaged, and mending it."""

from __future__ import annotations

from wherry.engine import settle
from wherry.errors import Conflict, WherryError
from wherry.image.check import Problem, check_images
from wherry.image.ingest import forget_partials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wherry.engine import Engine


def check(
    engine: Engine, *, repair: bool = False, force: bool = False, quick: bool = False
) -> Iterator[tuple[Problem, str]]:
    """Each problem, and what became of it: "", "repaired", or why it could not be.

    `force` lets a repair remove containers whose record cannot be read.
    """
    store = engine.image_store
    if not repair:
        with store.held():
            yield from ((problem, "") for problem in _problems(engine, quick, force))
        return
    try:
        lock = store.alone()
        lock.__enter__()
    except Conflict:
        raise Conflict(
            "images are being pulled, or containers made",
            hint="repair when that is done; without --repair a check disturbs nobody",
        ) from None
    try:
        for problem in _problems(engine, quick, force):
            yield problem, _mend(problem)
        forget_partials(store.root)
    finally:
        lock.__exit__(None, None, None)


def _mend(problem: Problem) -> str:
    if problem.mend is None:
        return ""
    try:
        problem.mend()
    except (OSError, WherryError) as error:
        return str(error)
    return "repaired"


def _problems(engine: Engine, quick: bool, force: bool) -> Iterator[Problem]:
    containers = engine.container_store
    for container_id, text in settle.problems(containers):

        def remove(container_id: str = container_id) -> None:
            settle.discard_damaged(container_id, containers, engine.runtime)

        yield Problem(
            text=text,
            mend=remove if force else None,
            hint="" if force else "--repair --force removes the container",
        )
    yield from check_images(
        engine.image_store,
        used_layers=engine.used_layers(),
        unshared=engine.runtime.unshared,
        quick=quick,
    )
