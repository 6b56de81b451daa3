"""Commands that look into a container: logs, top, port, diff."""

from __future__ import annotations

import sys

from wherry.backend import Command, execute
from wherry.cli import common
from wherry.cli.grammar import argument, command, option
from wherry.errors import WherryError
from wherry.files import write_all
from wherry.harmless import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from wherry.engine import Engine


def _tail(text: str) -> int:
    """A number of lines; -1 for all of them, which docker takes any other word for."""
    return int(text) if text.isascii() and text.isdigit() else -1


# ---- logs ----


@command(
    option("--details", type=bool, help="Show extra details provided to logs"),
    option("-f", "--follow", type=bool, help="Follow log output"),
    option("--since",
           help='Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative '
                '(e.g. "42m" for 42 minutes)'),
    option("-n", "--tail", default="all",
           help="Number of lines to show from the end of the logs"),
    option("-t", "--timestamps", type=bool, help="Show timestamps"),
    option("--until",
           help='Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative '
                '(e.g. "42m" for 42 minutes)'),
    argument("container"),
    examples="""\
  $ wherry logs -f --tail 20 web                       the last lines, and those to come
  $ wherry logs --since 10m -t web                     of the last ten minutes, with times
""",
)  # fmt: skip
def logs(
    container: str,
    details: bool,
    follow: bool,
    since: str,
    tail: str,
    timestamps: bool,
    until: str,
) -> int:
    """Fetch the logs of a container"""
    from wherry.times import parse_timestamp

    # Relative times are fixed here: the guest of a machine reads the command a little later.
    first, last = (parse_timestamp(text) if text else 0 for text in (since, until))

    def action(engine: Engine) -> int:
        records = engine.containers.logs(
            container, follow=follow, since=first, until=last, tail=_tail(tail)
        )
        for record in records:
            _print_record(record, details=details, timestamps=timestamps)
        return 0

    argv = logs.argv(
        container=container,
        details=details,
        follow=follow,
        since=common.moment(first),
        tail=tail,
        timestamps=timestamps,
        until=common.moment(last),
    )
    return execute(Command(argv=argv, action=action))


def _print_record(record: dict[str, Any], *, details: bool, timestamps: bool) -> None:
    """Write one record of a log to the stream that it came from."""
    text = str(record["log"])
    if details:
        attributes = record.get("attrs") or {}
        shown = ",".join(f"{name}={content}" for name, content in sorted(attributes.items()))
        text = f"{shown} {text}"
    if timestamps:
        text = f"{record['time']} {text}"
    data = text.encode(errors="surrogateescape")
    descriptor = 2 if record["stream"] == "stderr" else 1
    try:
        write_all(descriptor, data)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WherryError(f"cannot write the log: {error.strerror}") from error


# ---- top ----


@command(
    argument("container"),
    argument("ps_options", nargs=-1, required=False, metavar="ps OPTIONS"),
    usage="CONTAINER [ps OPTIONS]",
    interspersed=False,
    examples="""\
  $ wherry top web
  $ wherry top web -o pid,rss,args                     with the options of ps(1)
""",
)
def top(container: str, ps_options: tuple[str, ...]) -> int:
    """Display the running processes of a container"""

    def action(engine: Engine) -> int:
        titles, rows = engine.containers.top(container, ps_options)
        lines = [titles, *rows]
        widths = [
            max(20, *(len(cell) + 3 for cell in column)) for column in zip(*lines, strict=True)
        ]
        for line in lines:
            cells = [cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)]
            sys.stdout.write(shown(f"{''.join(cells)}{line[-1]}\n"))
        return 0

    argv = top.argv(container=container, ps_options=ps_options)
    return execute(Command(argv=argv, action=action))


# ---- diff ----


@command(argument("container"))
def diff(container: str) -> int:
    """Inspect changes to files or directories on a container's filesystem"""

    def action(engine: Engine) -> int:
        for kind, path in engine.containers.changes(container):
            print("CAD"[kind], shown(path))
        return 0

    return execute(Command(argv=diff.argv(container=container), action=action))
