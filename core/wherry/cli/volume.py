"""`wherry volume`: named places for data that outlive their containers."""

from __future__ import annotations

import os
import sys

from wherry.backend import Command, execute
from wherry.cli import common
from wherry.cli.each import complain
from wherry.cli.grammar import argument, command, option
from wherry.cli.options import read_label, read_pair
from wherry.errors import UsageError
from wherry.filters import parse_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wherry.engine import Engine

_FILTERS = ("dangling", "driver", "label", "label!", "name")
_PRUNE_FILTERS = ("all", "label", "label!")


def _pairs(texts: Iterable[str]) -> dict[str, str]:
    return {name: rest for name, _, rest in (text.partition("=") for text in texts)}


@command(
    option("-d", "--driver", default="local", help="Specify volume driver name"),
    option("--label", multiple=True, metavar="list", convert=read_label,
           help="Set metadata for a volume"),
    option("--name", hidden=True),
    option("-o", "--opt", multiple=True, metavar="map", convert=read_pair,
           help="Set driver specific options (type=tmpfs, o=size=1g, device=/dir)"),
    argument("volume", required=False),
    name="volume create",
    examples="""\
  $ wherry volume create data
  $ wherry volume create -o type=tmpfs -o device=tmpfs -o o=size=64m scratch
""",
)  # fmt: skip
def create(
    volume: str, driver: str, label: tuple[str, ...], name: str, opt: tuple[str, ...]
) -> int:
    """Create a volume"""
    from wherry.volume.store import is_bind

    if volume and name:
        raise UsageError("conflicting options: either specify --name or provide positional arg, "
                         "not both")  # fmt: skip
    volume = volume or name

    def action(engine: Engine) -> int:
        made = engine.volumes.create(
            volume, driver=driver, options=_pairs(opt), labels=_pairs(label)
        )
        print(made["Name"])
        return 0

    def argv(opt: tuple[str, ...]) -> tuple[str, ...]:
        return create.argv(volume=volume, driver=driver, label=label, opt=opt)

    def placed(place: Callable[[str], str]) -> tuple[str, ...]:
        return argv(tuple(_placed(text, place) for text in opt))

    return execute(
        Command(argv=argv(opt), action=action, placed=placed if is_bind(_pairs(opt)) else None)
    )


def _placed(option: str, place: Callable[[str], str]) -> str:
    """An option of a bind's; its device is a directory of this host."""
    name, _, path = option.partition("=")
    return f"device={place(path)}" if name == "device" and os.path.isabs(path) else option


@command(
    common.DOCUMENT_FORMAT,
    argument("volume", nargs=-1),
    name="volume inspect",
)
def inspect(volume: tuple[str, ...], format: str) -> int:  # noqa: A002
    """Display detailed information on one or more volumes"""

    def action(engine: Engine) -> int:
        from wherry.cli.inspect import print_found

        return print_found(volume, engine.volumes.inspect, format)

    argv = inspect.argv(volume=volume, format=format)
    return execute(Command(argv=argv, action=action, brief=True))


@command(
    common.FILTER,
    common.FORMAT,
    option("-q", "--quiet", type=bool, help="Only display volume names"),
    name="volume ls",
)
def ls(filter: tuple[str, ...], format: str, quiet: bool) -> int:  # noqa: A002
    """List volumes"""
    filters = parse_filters(filter, _FILTERS)

    def action(engine: Engine) -> int:
        from wherry.cli.tables import Table, label_fields, print_rows
        from wherry.words import natural_order

        table = Table(
            columns=("Driver", "Name"), titles={"Name": "VOLUME NAME"}, quiet="Name",
            raw="name: {{.Name}}\\ndriver: {{.Driver}}\\n",
        )  # fmt: skip
        rows = [
            {
                "Name": each["Name"],
                "Driver": each["Driver"],
                "Scope": each["Scope"],
                "Mountpoint": each["Mountpoint"],
                "Availability": "N/A",
                "Group": "N/A",
                "Links": "N/A",
                "Size": "N/A",
                "Status": "N/A",
                **label_fields(each["Labels"]),
            }
            for each in sorted(
                engine.volumes.list(filters), key=lambda each: natural_order(each["Name"])
            )
        ]
        print_rows(rows, table, template=format, quiet=quiet)
        for error in engine.volumes.damaged:
            complain(error.message, error.hint)
        return 0

    argv = ls.argv(filter=filter, format=format, quiet=quiet)
    return execute(Command(argv=argv, action=action, brief=True))


@command(
    option("-f", "--force", type=bool, help="Force the removal of one or more volumes"),
    argument("volume", nargs=-1),
    name="volume rm",
)
def rm(volume: tuple[str, ...], force: bool) -> int:
    """Remove one or more volumes"""

    def action(engine: Engine) -> int:
        from wherry.cli.each import for_each

        return for_each(volume, lambda name: engine.volumes.remove(name, force=force))

    return execute(Command(argv=rm.argv(volume=volume, force=force), action=action))


@command(
    option("-a", "--all", type=bool, help="Remove all unused volumes, not just anonymous ones"),
    common.PRUNE_FILTER,
    common.FORCE_PRUNE,
    name="volume prune",
)
def prune(all: bool, filter: tuple[str, ...], force: bool) -> int:  # noqa: A002
    """Remove unused local volumes"""
    from wherry.cli.prune import confirm, print_pruned

    filters = parse_filters(filter, _PRUNE_FILTERS)
    kind = "all" if all else "anonymous"
    confirm(
        f"WARNING! This will remove {kind} local volumes not used by at least one container.",
        "volume prune",
        force,
    )

    def action(engine: Engine) -> int:
        result = engine.volumes.prune(filters, all=all)
        print_pruned("Deleted Volumes:", result["VolumesDeleted"], result["SpaceReclaimed"])
        return 0

    return execute(Command(argv=prune.argv(all=all, filter=filter, force=True), action=action))


@command(
    option("-o", "--output", help="Write to a file, instead of STDOUT"),
    argument("volume"),
    name="volume export",
)
def export(volume: str, output: str) -> int:
    """Export the files of a volume as a tar archive"""
    if not output and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError("cowardly refusing to save to a terminal. Use the -o flag or redirect")

    def action(engine: Engine) -> int:
        from wherry.engine.volume_files import write_files
        from wherry.files import Draft

        found = engine.volumes.store.find(volume)
        if not output:
            write_files(found, engine.runtime, sys.stdout.fileno())
            return 0
        with Draft(output) as descriptor:
            write_files(found, engine.runtime, descriptor)
        return 0

    return execute(Command(argv=export.argv(volume=volume), action=action, output=output))


@command(
    argument("volume"),
    argument("source", required=False, metavar="file|-"),
    name="volume import",
)
def import_(volume: str, source: str) -> int:
    """Put the files of a tar archive into a volume"""
    is_stdin = source in ("", "-")
    try:
        stream = open(0 if is_stdin else source, "rb", buffering=0, closefd=not is_stdin)  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"open {source}: {os.strerror(error.errno or 0).lower()}") from error

    def action(engine: Engine) -> int:
        from wherry.engine.volume_files import read_files

        with stream:
            found = engine.volumes.store.find(volume)
            read_files(found, engine.runtime, stream.fileno())
        return 0

    argv = import_.argv(volume=volume, source="-")
    return execute(Command(argv=argv, action=action, stdin=stream))
