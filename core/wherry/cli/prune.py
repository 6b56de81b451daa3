"""Commands that remove what nothing uses: `container prune`, `system prune`."""

from __future__ import annotations

import sys

from wherry.backend import Command, execute
from wherry.cli import common
from wherry.cli.grammar import command, option
from wherry.errors import UsageError, WherryError
from wherry.filters import parse_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wherry.engine import Engine

_FILTERS = ("label", "label!", "until")


def confirm(warning: str, what: str, force: bool) -> None:
    """Ask before something is removed for good. Raises WherryError where the answer is no."""
    if force:
        return
    sys.stdout.write(f"{warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    answer = sys.stdin.readline() if sys.stdin is not None else ""
    if answer.strip().lower() not in ("y", "yes"):
        if not answer:
            print()
        raise WherryError(f"{what} has been cancelled")


def print_pruned(title: str, names: Sequence[str], reclaimed: int) -> None:
    """What a prune removed, and what that gave back."""
    from wherry.human import human_size

    if names:
        print(title, *names, sep="\n", end="\n\n")
    print(f"Total reclaimed space: {human_size(reclaimed)}")


@command(common.PRUNE_FILTER, common.FORCE_PRUNE, name="container prune")
def prune_containers(filter: tuple[str, ...], force: bool) -> int:  # noqa: A002
    """Remove all stopped containers"""
    filters = parse_filters(filter, _FILTERS)
    confirm("WARNING! This will remove all stopped containers.", "container prune", force)

    def action(engine: Engine) -> int:
        result = engine.containers.prune(filters)
        print_pruned("Deleted Containers:", result["ContainersDeleted"], result["SpaceReclaimed"])
        return 0

    argv = prune_containers.argv(filter=filter, force=True)
    return execute(Command(argv=argv, action=action))


@command(
    option("-a", "--all", type=bool, help="Remove all unused images not just dangling ones"),
    common.PRUNE_FILTER,
    common.FORCE_PRUNE,
    option("--volumes", type=bool, help="Prune anonymous volumes"),
    name="system prune",
    examples="""\
  $ wherry system prune                                stopped containers, images without a name
  $ wherry system prune -a --volumes -f                also unused images and anonymous volumes
""",
)
def prune_system(
    all: bool,  # noqa: A002
    filter: tuple[str, ...],  # noqa: A002
    force: bool,
    volumes: bool,
) -> int:
    """Remove unused data"""
    filters = parse_filters(filter, _FILTERS)
    if volumes and "until" in filters:
        raise UsageError('the "until" filter is not supported with "--volumes"')
    lines = ["all stopped containers", "all networks not used by at least one container"]
    if volumes:
        lines.append("all anonymous volumes not used by at least one container")
    lines.append(
        "all images without at least one container associated to them"
        if all
        else "all dangling images"
    )
    lines.append("all build cache" if all else "unused build cache")
    listed = "".join(f"  - {line}\n" for line in lines)
    confirm(f"WARNING! This will remove:\n{listed}", "system prune", force)

    def action(engine: Engine) -> int:
        from wherry.cli.builder import prune_cache
        from wherry.human import human_size

        reclaimed = 0
        result = engine.containers.prune(filters)
        reclaimed += result["SpaceReclaimed"]
        _print_section("Deleted Containers:", result["ContainersDeleted"])
        _print_section("Deleted Networks:", engine.networks.prune(filters))
        if volumes:
            result = engine.volumes.prune(filters, all=False)
            reclaimed += result["SpaceReclaimed"]
            _print_section("Deleted Volumes:", result["VolumesDeleted"])
        images = engine.images.prune(filters, all=all)
        reclaimed += images["SpaceReclaimed"]
        _print_section("Deleted Images:", _image_lines(images["ImagesDeleted"]))
        cached, size = prune_cache(engine, filters, everything=all)
        reclaimed += size
        _print_section("Deleted build cache objects:", cached)
        print(f"Total reclaimed space: {human_size(reclaimed)}")
        return 0

    argv = prune_system.argv(all=all, filter=filter, force=True, volumes=volumes)
    return execute(Command(argv=argv, action=action))


def _print_section(title: str, names: Sequence[str]) -> None:
    if names:
        print(title, *names, sep="\n", end="\n\n")


def _image_lines(deleted: Sequence[dict[str, str]]) -> list[str]:
    return [
        f"{word}: {each[key]}"
        for each in deleted
        for key, word in (("Untagged", "untagged"), ("Deleted", "deleted"))
        if key in each
    ]
