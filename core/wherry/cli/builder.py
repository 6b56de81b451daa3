"""Commands about the build cache: `builder du` and `builder prune`."""

from __future__ import annotations

from wherry.backend import Command, execute
from wherry.cli.common import FORCE_PRUNE, PRUNE_FILTER
from wherry.cli.grammar import command, option
from wherry.harmless import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wherry.engine import Engine


@command(
    option("--verbose", type=bool, help="Say of which step each entry is"),
    name="builder du",
)
def du(verbose: bool) -> int:
    """Disk usage of the build cache"""

    def action(engine: Engine) -> int:
        from wherry.builder.usage import usage
        from wherry.human import human_size
        from wherry.times import ago

        found = usage(engine)
        print(f"{'ID':<30}{'RECLAIMABLE':<14}{'SIZE':<12}LAST ACCESSED")
        for entry in found:
            last = ago(int(entry["LastUsed"] * 1_000_000_000))
            size, free = human_size(entry["Size"]), str(not entry["InUse"]).lower()
            print(f"{entry['ID'][:25]:<30}{free:<14}{size:<12}{last}")
            if verbose:
                print(f"  {shown(entry['Step'])}")
        free = sum(entry["Size"] for entry in found if not entry["InUse"])
        print(f"Reclaimable:\t{human_size(free)}")
        print(f"Total:\t\t{human_size(sum(entry['Size'] for entry in found))}")
        return 0

    return execute(Command(argv=du.argv(verbose=verbose), action=action))


@command(
    option("-a", "--all", type=bool, help="Remove all of the cache, not just what no image uses"),
    PRUNE_FILTER,
    FORCE_PRUNE,
    name="builder prune",
)
def prune(all: bool, filter: tuple[str, ...], force: bool) -> int:  # noqa: A002
    """Remove build cache"""
    from wherry.cli.prune import confirm
    from wherry.filters import parse_filters

    filters = parse_filters(filter, ("until", "unused-for"))
    what = "all build cache" if all else "all dangling build cache"
    confirm(f"WARNING! This will remove {what}.", "builder prune", force)

    def action(engine: Engine) -> int:
        from wherry.human import human_size

        gone, size = prune_cache(engine, filters, everything=all)
        if gone:
            print("Deleted build cache objects:", *gone, sep="\n", end="\n\n")
        print(f"Total reclaimed space: {human_size(size)}")
        return 0

    argv = prune.argv(all=all, filter=filter, force=True)
    return execute(Command(argv=argv, action=action))


def prune_cache(
    engine: Engine, filters: Mapping[str, Sequence[str]], *, everything: bool
) -> tuple[list[str], int]:
    """Forget what was not used since the filter "until" says; see `builder.usage.prune`."""
    from wherry.builder import usage
    from wherry.times import parse_timestamp

    moments = [parse_timestamp(text) for text in filters.get("until", ())]
    before = min(moments) / 1_000_000_000 if moments else None
    return usage.prune(engine, everything=everything, before=before)
